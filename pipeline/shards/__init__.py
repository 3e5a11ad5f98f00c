"""Building shard sets: the plan, the samples, the tars, the index, sidecars of more experts.

For the command line and `shard_checks`. Reads target sets (`store`), never extracts; knows nothing of `inspect`.
"""
