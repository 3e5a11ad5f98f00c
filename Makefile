# Two commands do all set-up:  make quickstart  (runs the main job)   make test  (runs the tests)
PYTHON ?= python3.11
BIN := .venv/bin
PYTEST_ARGS ?=

.PHONY: install quickstart test test-real check clean

install: .venv/.installed

quickstart: install
	$(BIN)/coat quickstart --out runs/quickstart

test: .venv/.installed-all
	$(BIN)/python -m pytest -m "not real" $(PYTEST_ARGS)

# The tests on real recordings: COAT_REAL_DIR (manifest.jsonl and its audio), COAT_WHISPER_DIR (a Whisper folder).
test-real: .venv/.installed-all
	$(BIN)/python -m pytest -m real $(PYTEST_ARGS)

check: .venv/.installed-all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf .venv runs build dist *.egg-info

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[opensmile,yamnet]'
	touch $@

.venv/.installed-all: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@
