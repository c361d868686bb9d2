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
DYNAMMO := cd bundle && $(CURDIR)/$(VENV)/bin/dynammo
# what goes beyond DynaMMo at the cost of the plain backbone, and keeps no image (README)
RECOMMENDED := dynammo+lora+levels+ridge+without_memory+orientations+judged

.PHONY: help env plan train compare test test-slow lint docs docs-serve notebooks prose bench bundle wheel sbom dated release clean

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

plan: env  ## say what would be trained, and train nothing (DATA=/my/folder, or DATA=skin8 ARGS='--dataset_dir DIR')
	$(DYNAMMO) plan '$(DATA)' $(ARGS)

# The other methods learn the same images; with ARGS there is nothing of the same settings to set beside it.
train: env  ## run the main job, DynaMMo on generated images, and draw it beside others (ARGS='--seed 2': it alone)
	$(DYNAMMO) train $(ARGS)
	$(if $(ARGS),,$(DYNAMMO) compare generated finetune+without_memory dynammo $(RECOMMENDED) --seeds 1 --jobs 2 --runs runs)

compare: env  ## compare methods over seeds (ARGS='generated dynammo acl --seeds 1,2,3')
	$(DYNAMMO) compare $(ARGS)

test: env  ## run the tests, without the slow ones, in two processes (ARGS='tests/edge -n 0' for some, in one)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -m 'not slow' -n 2 --dist worksteal $(ARGS)

test-slow: env  ## run the slow tests
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -m slow $(ARGS)

lint: env  ## check style, format and types
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy bundle/scripts dynammo

# The site fetches nothing, and neither does its build: NO_MKDOCS_2_WARNING silences an advertisement.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs

$(VENV)/.docs $(VENV)/.sbom: $(VENV)/.%: $(STAMP)
	$(VENV_PYTHON) -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,$*]'
	@touch $@

docs: $(VENV)/.docs  ## build the documentation into site/, every link checked
	$(MKDOCS) build --strict

docs-serve: $(VENV)/.docs  ## show the documentation while it is written
	$(MKDOCS) serve

notebooks: $(VENV)/.docs  ## run the notebooks of the documentation, and keep what they print
	NOTEBOOKS=docs/notebooks OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest tests/docs/test_notebooks.py

prose: env  ## print words, lines, the mean sentence and a reading grade of the pages
	@$(VENV_PYTHON) tools/prose.py README.md bundle/docs/README.md $$(find docs -name '*.md' | sort)

bench: env  ## measure and print the cost of inference (ARGS goes there), of training, of loading, of the doors and the edge
	$(VENV_PYTHON) benchmarks/run.py $(ARGS)
	$(VENV_PYTHON) benchmarks/training.py
	$(VENV_PYTHON) benchmarks/loading.py
	$(VENV_PYTHON) benchmarks/folder.py
	$(VENV_PYTHON) benchmarks/node.py
	$(VENV_PYTHON) benchmarks/edge.py

bundle: env  ## write the MONAI zip of a finished run (RUN=folder, ZIP=file; DEPLOY=1 leaves learning out)
	@mkdir -p '$(dir $(ZIP))'
	$(VENV)/bin/dynammo package '$(RUN)' '$(ZIP)' $(if $(DEPLOY),--deploy)

wheel: env  ## build the wheel that brings the command dynammo, into dist/
	$(VENV_PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

sbom: $(VENV)/.sbom  ## write the bill of materials of what is installed, CycloneDX, into dist/
	$(VENV_PYTHON) tools/sbom.py dist/dynammo-bundle.cdx.json

# The version stands in setup.cfg and metadata.json, its date in CHANGELOG.md (CONTRIBUTING.md, "A release").
VERSION := $(shell sed -n 's/^version = //p' setup.cfg)

dated:
	@! grep -qF '[$(VERSION)] - unreleased' CHANGELOG.md || { \
		echo "CHANGELOG.md calls $(VERSION) unreleased: write its date there" >&2; exit 1; }

release: dated lint test test-slow docs wheel sbom  ## check everything; wheel, bill of materials and checksums into dist/
	cd dist && sha256sum *-$(VERSION)-*.whl *.cdx.json > SHA256SUMS
	@echo "dist/ holds the release: tag v$(VERSION) and attach it"

clean:  ## remove caches and built files; .venv, runs and models stay
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find bundle tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
