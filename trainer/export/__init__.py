"""A run's student as a folder that others serve: transformers, vLLM, SGLang; none of them needs coat.

export.py          the folder is built, tried and renamed         targets.py    what each server can't do is refused
merging.py         the adapter goes into the weights              template.py   the thinking block in the chat template
layout.py, names.py, processor_files.py   files that transformers 4.57, transformers 5, vLLM and SGLang read alike
model_card.py, usage.py                   README.md, with the code that loads it

It stands on `trainer.generation`; evaluation, training and the command line may import it, it never these.
"""
