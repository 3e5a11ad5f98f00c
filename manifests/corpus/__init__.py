"""A corpus: its manifest row by row and as columns, checks, splits, and the synthetic one.

sources, the packages above and coat.cli import it. It imports audio, storage and errors, and never a target or a shard.
"""
