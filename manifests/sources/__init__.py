"""Corpora in the forms that people have, one file a format, made into a manifest (`importing.py`).

coat.cli imports it. It imports corpus and audio, and never targets or shards.
"""
