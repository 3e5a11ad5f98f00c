# Two commands do all set-up:  make quickstart  (runs the main job)   make test  (runs the tests)
PYTHON ?= python3.11
BIN := .venv/bin
PYTEST_ARGS ?=
PARALLEL ?= -n 3 --dist loadfile --no-loadscope-reorder  # empty: one after another, with what tests print (-s)

.PHONY: install quickstart test docs chaos test-real bench gpu-check scale-model real-model serve-check check clean

install: .venv/.installed

quickstart: install
	$(BIN)/coat quickstart --out runs/quickstart

test: .venv/.installed-all
	$(BIN)/python -m pytest -m "not real" --ignore tests/chaos $(PARALLEL) $(PYTEST_ARGS)

# The documentation site, in build/site: open index.html. Strict: a link or an anchor that leads nowhere ends it; not with
# --quiet, which counts no warnings.
docs: .venv/.installed-all
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean

# Extraction under faults: workers and nodes that die, disks that are full, an S3 that stalls. docs/reliability.md
chaos: .venv/.installed-all
	$(BIN)/python -m pytest tests/chaos $(PYTEST_ARGS)

# The tests on real recordings: COAT_REAL_DIR (manifest.jsonl and its audio), COAT_WHISPER_DIR (a Whisper folder),
# COAT_SOUNDFONT (TimGM6mb.sf2 of Debian's timgm6mb-soundfont).
test-real: .venv/.installed-all
	$(BIN)/python -m pytest -m real $(PYTEST_ARGS)

# What is promised of speed, in under 15 minutes on 2 cores. COAT_WHISPER_DIR: a tiny.en, else random weights. Those that take
# long, or are no benchmark, are run by themselves.
BY_THEMSELVES := driver_store experts feeding gpu_check invariance probing scale_manifests scale_shards scale_store seams shards_s3 share_decode stats tars whisper_padding
NO_BENCHMARK := __init__ common gpu_check_experts gpu_check_training paced_expert report slow_s3
BENCHMARKS := $(filter-out $(BY_THEMSELVES) $(NO_BENCHMARK),$(basename $(notdir $(wildcard benchmarks/*.py))))
bench: .venv/.installed-all
	rm -f runs/bench/*.json
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done
	$(BIN)/python -m benchmarks.report

# Is what others serve what `coat generate` says? vLLM and transformers 4.57 in environments of their own under runs/serving
# (some 3 GB, made once), tiny students, every token compared. SERVE_ARGS='--students qwen2-audio': one of them.
serve-check: .venv/.installed-all
	$(BIN)/python -m benchmarks.serving.check $(SERVE_ARGS)

# On a machine with a GPU, in under 8 minutes: extraction's speed, what it does when the device fails or is full, and
# training steps of three students.
# GPU_CHECK_ARGS=--tiny: the same on CPUs, with small models.
gpu-check: .venv/.installed-all
	$(BIN)/python -m benchmarks.gpu_check $(GPU_CHECK_ARGS)

# Does the method help a student that this machine can train? Under 20 minutes on 2 cores; docs/scale-model.md has
# the whole sweep. SCALE_ARGS=--smoke: the machinery alone.
scale-model: .venv/.installed-all
	$(BIN)/python -m benchmarks.scale_model $(SCALE_ARGS)

# The same question on real weights and real sounds, one seed of two arms, in some ten minutes (docs/real-model.md has
# the study). REAL_MODEL_ARGS='--digits FOLDER': where the tars of the Free Spoken Digit Dataset lie.
real-model: .venv/.installed-all
	$(BIN)/python -m benchmarks.real_model $(REAL_MODEL_ARGS)

check: .venv/.installed-all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf .venv runs build dist *.egg-info

.venv/.installed: pyproject.toml constraints.txt deploy/install.py
	$(PYTHON) -m venv .venv
	$(BIN)/python deploy/install.py --editable '.[opensmile,yamnet]'
	touch $@

.venv/.installed-all: .venv/.installed
	$(BIN)/python deploy/install.py --editable '.[all,dev,docs]'
	touch $@
