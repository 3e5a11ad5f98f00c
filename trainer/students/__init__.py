"""One adapter per large audio language model, and the registry that finds it by `model_type`.

A new student is one file here and one line in `registry.py`. Every room above may import it; it knows nothing of
thinking blocks, heads, shards or runs.
"""
