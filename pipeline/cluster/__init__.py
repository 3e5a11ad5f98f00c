"""Work in parallel: resources, processes, Ray and its errors.

Anyone in coat.pipeline and coat.cli may import it. It knows no units, targets or shards: no other room.
"""
