"""What a run wrote, read again: its checkpoints, the best of them, and many runs compared.

It imports no torch: a table of a hundred runs is made in a second.
"""
