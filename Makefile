# The project's few commands; `make` lists them. All of them set up .venv first where that is needed.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
DATA ?= generated
RUN ?= bundle/runs/generated-dynammo-resnet18-s1
ZIP ?= dist/$(notdir $(RUN:%/=%)).zip
ARGS ?=

VENV := .venv
STAMP := $(VENV)/.installed
VENV_PYTHON := $(CURDIR)/$(VENV)/bin/python

.PHONY: help env plan train compare test test-slow lint bench bundle clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

env: $(STAMP)  ## set up .venv with the pinned packages (PYTHON=python3.12 for another Python)

# setuptools goes in first, at its pin, and builds the project without isolation: nothing unpinned is fetched.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make env needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1)." \
			"Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --quiet --constraint constraints.txt setuptools
	$(VENV_PYTHON) -m pip install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

plan: env  ## say what would be trained, and train nothing (DATA=skin8, ARGS='--dataset_dir DIR')
	cd bundle && $(VENV_PYTHON) -m scripts.commands.plan '$(DATA)' $(ARGS)

train: env  ## run the main job: DynaMMo on generated images (ARGS='--seed 2' overrides)
	cd bundle && $(VENV_PYTHON) -m monai.bundle run --config_file configs/train.json $(ARGS)

compare: env  ## compare methods over seeds (ARGS='--data generated --methods dynammo acl --seeds 1 2 3')
	cd bundle && $(VENV_PYTHON) -m scripts.commands.compare $(ARGS)

test: env  ## run the tests, without the slow ones, in two processes (ARGS='tests/edge -n 0' for some, in one)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -m 'not slow' -n 2 --dist worksteal $(ARGS)

test-slow: env  ## run the slow tests
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -m slow $(ARGS)

lint: env  ## check style, format and types
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy bundle/scripts

bench: env  ## measure and print the cost of inference (ARGS goes there), of training, of loading, of the doors and the edge
	$(VENV_PYTHON) benchmarks/run.py $(ARGS)
	$(VENV_PYTHON) benchmarks/training.py
	$(VENV_PYTHON) benchmarks/loading.py
	$(VENV_PYTHON) benchmarks/folder.py
	$(VENV_PYTHON) benchmarks/node.py
	$(VENV_PYTHON) benchmarks/edge.py

bundle: env  ## write the MONAI zip of a finished run (RUN=folder, ZIP=file)
	@mkdir -p '$(dir $(ZIP))'
	PYTHONPATH=bundle $(VENV_PYTHON) -m scripts.commands.package '$(RUN)' '$(ZIP)'

clean:  ## remove caches and built files; .venv, runs and models stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find bundle tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
