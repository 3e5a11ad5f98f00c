"""Shards to samples to batches, in an order that is a function of the seed alone, resumable anywhere.

It imports config, students and model (the batch that it makes); it must never know of training or evaluation.
"""
