"""The experts, one file each; `registry.py` names them.

Nobody imports one but by its name in the registry (and tests). They import checkpoints and what lies beside this room,
and never conformance.
"""
