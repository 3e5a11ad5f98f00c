"""Scores of answers: accuracy over rows with prompts and responses, by task.

`trainer.training` and the command line may import it; it must never import `trainer.training`.
"""
