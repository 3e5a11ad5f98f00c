"""What a trained student heard, and what its answers used: hidden states read, probed and replaced.

Reads runs (`coat.trainer`) and stores (`coat.pipeline`); nothing of both knows it.
"""
