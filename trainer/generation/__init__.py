"""Asking a trained student: its folder in a run, generation, and the export with a model card.

`trainer.evaluation`, `trainer.training` and the command line may import it; it must never import these.
"""
