# Everything that is done with this project, from a machine with only Python 3.11+ and make.
# The first target that is run sets up .venv with the pinned versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# one thread a process: the tests already run in two, and timings stay comparable
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
# two processes compile what one of them, or an earlier run, has compiled
COMPILED := PYTHONDONTWRITEBYTECODE= JAX_COMPILATION_CACHE_DIR=$(CURDIR)/$(VENV)/jax JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
PYTEST := $(THREADS) $(COMPILED) $(BIN)/python -m pytest -n 2 --dist worksteal
COUNT ?= 10000
SEED ?= 0
SAVED ?= benchmarks/results/cpu.json

.DEFAULT_GOAL := help
.PHONY: help setup check test test-all test-gpu coverage lint format typecheck conform vectors soak false-alarms detection arithmetics-measure diagnosis-measure training-measure browser docs pictures fuzz mutation bench bench-gpu bench-compare bench-save certify-gradcheck pytest-benchmark wheel-check clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment

# torch first and pinned: left to the resolver it may become the newest build, with gigabytes of CUDA
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("refimpl needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,jax,data,bench,teach,dev]'
	touch $@

# what the browser's tests need; nothing is installed where it is there already
AXE := $(VENV)/node/node_modules/axe-core/axe.min.js
browser: $(AXE) ## Chromium and axe-core, for the tests of the lesson
	command -v chromium || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)

$(AXE): $(READY)
	npm install --silent --no-save --no-package-lock --no-audit --no-fund --prefix $(VENV)/node axe-core@4.14.1

check: $(READY) ## refimpl check on the article's network and on the handwritten digits
	$(BIN)/refimpl check
	@echo
	$(BIN)/refimpl check --example digits

test: $(READY) ## the test suite, some minutes
	$(PYTEST)

test-all: $(READY) ## the tests that are marked too, and more examples of every property: kills, soak, compiled and distributed runs
	REFIMPL_TEST_EXAMPLES=100 $(PYTEST) -m ''

test-gpu: $(READY) ## what needs a CUDA device (set up with CUDA builds of PyTorch, JAX and CuPy)
	$(BIN)/python -m pytest tests/backends/test_gpu.py -m ''

coverage: $(READY) ## test-all with branch coverage, at least 95 %
	rm -f .coverage .coverage.*
	REFIMPL_TEST_EXAMPLES=100 $(PYTEST) -m '' --cov --cov-report=term

lint: $(READY) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## ruff: put both right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(READY) ## mypy, strict
	$(BIN)/mypy

conform: $(READY) ## the conformance suite on every backend, float64
	$(THREADS) $(BIN)/refimpl conform --require-backend numpy --require-backend torch --require-backend jax

vectors: $(READY) ## make the vector files anew
	$(THREADS) $(BIN)/refimpl vectors generate refimpl/conformance/vectors

soak: $(READY) ## random networks through every backend, float64 and float32 (COUNT=10000 SEED=0)
	$(THREADS) $(BIN)/refimpl soak --count $(COUNT) --seed $(SEED) --dtype float64
	$(THREADS) $(BIN)/refimpl soak --count $(COUNT) --seed $(SEED) --dtype float32

false-alarms: COUNT = 200
false-alarms: $(READY) ## the largest errors of right implementations as shares of their bounds, half an hour (COUNT=200 SEED=0)
	$(THREADS) $(BIN)/python tests/false_alarms.py --count $(COUNT) --seed $(SEED)

detection: $(READY) ## what the tolerance notices of bugs planted in right answers, into docs/detection-table.md, two minutes (SEED=0)
	$(THREADS) $(BIN)/python tests/detection.py --seed $(SEED) --out docs/detection-table.md

arithmetics-measure: COUNT = 500
arithmetics-measure: $(READY) ## the same for emulated TF32, bfloat16, float16 and tensor cores, declared or not (COUNT=500 SEED=0)
	$(THREADS) $(BIN)/python tests/arithmetics_measure.py --count $(COUNT) --seed $(SEED)

diagnosis-measure: $(READY) ## how often a planted fault is named rightly, and another mistake wrongly
	$(THREADS) $(BIN)/python tests/diagnosis_measure.py --seed $(SEED)

training-measure: $(READY) ## training runs killed at 200 random moments, and 20 with one seed, on every backend
	$(THREADS) $(BIN)/python tests/killing.py --seed $(SEED)

fuzz: $(READY) ## 300,000 mutated vector files, answers and hellos
	$(BIN)/python tests/fuzz.py

mutation: $(READY) ## does a test notice every change to what decides? hours; MODULE=refimpl.judge.judge for one
	$(THREADS) $(BIN)/python tests/mutation.py $(if $(MODULE),--module $(MODULE))

bench: $(READY) ## every backend beside its peers and the floor: tables, an HTML page, JSON (about 25 minutes, an idle machine)
	$(BIN)/refimpl bench --out benchmark-results

bench-gpu: $(READY) ## the same on a CUDA device
	$(BIN)/refimpl bench --device cuda --out benchmark-results/gpu

bench-compare: $(READY) ## the same, held against a saved run by ratio to the floor (SAVED=benchmarks/results/cpu.json)
	$(BIN)/refimpl bench --out benchmark-results --compare $(SAVED)

bench-save: ## keep benchmark-results/ in benchmarks/results/, and its summary in benchmarks/README.md
	$(BIN)/python benchmarks/save.py benchmark-results

certify-gradcheck: $(READY) ## how many times faster certify is than torch.autograd.gradcheck
	$(THREADS) $(BIN)/python benchmarks/certify_gradcheck.py

pytest-benchmark: $(READY) ## some of it under pytest-benchmark
	$(THREADS) $(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only --benchmark-sort=name

docs: $(VENV)/.docs ## the documentation, every code cell of it run: docs/_build/html/index.html
	PATH="$(abspath $(BIN)):$$PATH" $(THREADS) $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

pictures: $(VENV)/.docs browser ## the README's pictures, made anew
	$(THREADS) $(BIN)/python docs/pictures/make.py

wheel-check: $(READY) ## sdist → wheel → empty environment: every entry point loads from there
	$(BIN)/python tests/wheel_check.py

clean: ## remove what the targets made, the environment too
	rm -rf $(VENV) docs/_build docs/jupyter_execute dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
