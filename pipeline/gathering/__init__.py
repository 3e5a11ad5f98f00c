"""Frames of many rows, read unit by unit with few requests and kept at hand until they are wanted; and which of them a piece has.

For `shards` and `reductions`. Reads committed units (`store`); knows nothing of samples and tars.
"""
