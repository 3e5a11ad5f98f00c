"""What a run is: the sections of its TOML file, how they are read and written, what a resumed run may change.

Everything in the trainer may import it; it imports no other room, and no torch.
"""
