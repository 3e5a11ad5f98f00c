"""What is trained: student, thinking block, LoRA, heads and losses as one module, and the batch that it takes.

It imports config and students; it must never know of shards, of how samples become batches, or of a run.
"""
