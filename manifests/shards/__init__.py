"""Shard sets as they lie on disk: index, table of samples, tars. Reading alone; coat.pipeline.shards builds them.

coat.pipeline and coat.trainer import it. It imports targets, storage and errors, and never corpus or sources.
"""
