"""The target store: its layout, reading what was committed, committing units, verifying them.

Anyone in coat.pipeline and coat.cli may import it. It knows manifests alone: no expert, no Ray, no other room.
"""
