"""Exports, served: does a server without coat say what `coat generate` says, and how fast.

check.py     `make serve-check`: vLLM, transformers 5 and 4.57 beside coat, token by token; prefix caching
__main__.py  `python -m benchmarks.serving`: time to the first token and tokens a second on vLLM
venvs.py, students.py, server.py     what both need: environments, students and exports, a server on loopback
plain.py, client.py                  programs that run in those environments: they know nothing of coat
"""
