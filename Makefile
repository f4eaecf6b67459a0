# `make demo` and `make test` each do all their set-up: a .venv with the versions of constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WORKERS ?= 2

# No telemetry; and OpenMP threads that sleep while they wait, or torch processes slow each other down on few cores.
export RAY_USAGE_STATS_ENABLED = 0
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = true
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help demo test test-all check fix audit setup clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(READY) ## the virtual environment alone

# PyTorch goes first: a plain `torch` taken as another package's dependency pulls gigabytes of CUDA packages.
$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Beagle needs Python 3.11 or later")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--config-settings editable_mode=compat --editable '.[dev]'
	touch $(READY)

demo: $(READY) ## evolve a small detector, start to end
	$(BIN)/beagle demo

# Two files at a time, those first that take longest (tests/conftest.py); with WORKERS=0 one test after the other.
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --no-loadscope-reorder

test: $(READY) ## the tests, but for those of many minutes
	$(PYTEST) -m "not slow" --durations=10

test-all: $(READY) ## every test
	$(PYTEST) --durations=20

check: $(READY) ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY) ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# In an environment of its own, so that it changes nothing; --strict fails where a version could not be looked up.
audit: constraints.txt ## look up known vulnerabilities of the pinned versions; needs PyPI's advisories
	$(PYTHON) -m venv $(VENV)/audit || python3 -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement constraints.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
