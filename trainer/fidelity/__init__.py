"""How well the block hears: what heads say of held-out clips against what the experts heard, by measures of the field.

Knows students, heads and shards; the training asks it beside its evaluations, `coat fidelity` of any run.
"""
