"""Evaluation: benchmarks, the student (or a server) that is asked, two scores of every answer, and results.

benchmark.py     the contract; benchmarks/ has one file each, registry.py lists them
templates.py     how a question becomes a prompt
choices.py       the strict rule: which choice an answer names
predictions.py   E/predictions.jsonl, E/scores.jsonl: a line a row
results.py       E/results.json

`trainer.training` and the command line may import it; it must never import `trainer.training`.
"""
