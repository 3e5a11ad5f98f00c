"""Corpora in tars, read where they lie: WebDataset, NeMo's tarred datasets, coat's own shards.

`members` reads headers, `samples` groups what it finds, and each format makes records of that.
"""
