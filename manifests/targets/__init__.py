"""What a target is (`spec.py`), and its frames as bytes: as extracted, or reduced.

shards and the packages above import it. It imports errors alone, and never torch, an expert or a corpus.
"""
