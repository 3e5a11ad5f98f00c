"""One file a benchmark: its docstring says where it comes from and what a record looks like; then a small class.

`registry.py` lists them. A benchmark imports `trainer.evaluation.benchmark` and the files beside that, no more.
"""
