"""What is trained: student, thinking block, LoRA, heads and losses as one module, and the batch that it takes.

It imports config and students; it must never know how shards are read, how samples become
batches, or how a run goes.
"""
