"""Checkpoints as local files: from a hub id or a folder to configuration, digest, tensors and models.

experts, nemo_encoder, registry and conformance import it. It imports no expert, and nothing else of coat.extractors.
"""
