"""Ranks: DDP, and FSDP2 of frozen or of all weights."""
