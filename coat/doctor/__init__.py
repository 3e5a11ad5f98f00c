"""`coat doctor`: is this machine fit for the work? One file per subject, each a function `look`.

What may hang or crash (devices, Ray, shares, networks, native libraries) is looked at in a process of its own:
`examine.py` starts them, `child.py` runs in them.
"""
