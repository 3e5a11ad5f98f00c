"""Before a run: the memory that it takes, what a batch looks like, and whether one batch can be learnt by heart.

The topmost room of the trainer: only the command line and benchmarks import it. It must never write to a run's folder.
"""
