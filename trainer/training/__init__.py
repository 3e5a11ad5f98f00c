"""Training a student: steps, checkpoints, metrics, ranks, and the evaluation on held-out shards beside them.

The command line, `trainer.planning` and benchmarks may import it; it must never import `trainer.planning`.
"""
