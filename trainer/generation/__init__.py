"""Asking a trained student: its folder in a run, and generation.

`trainer.evaluation`, `trainer.training` and the command line may import it; it must never import these.
"""
