"""Frames of many rows, read unit by unit with few requests and kept until they are wanted; which of them a piece has.

For `shards` and `reductions`. Reads committed units (`store`); knows nothing of samples and tars.
"""
