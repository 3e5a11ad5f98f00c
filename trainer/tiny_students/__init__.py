"""Tiny random checkpoints in the students' true formats: for tests, the quickstart and benchmarks.

It stands alone: the command line, tests and benchmarks may import it; the trainer's other rooms must not.
"""
