# Two commands do all the set-up: `make leaderboard` and `make test`.
# Settings: CONFIG=config/x.yaml  CORES=4 (0: what may be used)  PYTHON=python3.12  VENV=.venv
#           CONSTRAINTS=constraints.txt (the very versions that were tested)
#           CUDA=1 (CUDA's compiler by pip; the default where there is a card and no nvcc)
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
CONFIG ?= config/digits.yaml
CORES ?= 0
CONSTRAINTS ?=
CUDA ?= $(shell command -v nvidia-smi > /dev/null && ! PATH="$$PATH:/usr/local/cuda/bin" command -v nvcc > /dev/null && echo 1)
BIN := $(VENV)/bin
COMMA := ,
PACKAGES := $(VENV)/.packages$(if $(CUDA),-cuda)
PINNED := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
export PATH := $(if $(filter /%,$(BIN)),$(BIN),$(CURDIR)/$(BIN)):$(PATH)
# Some clusters have pip install into the home folder: here it installs into the environment.
export PIP_USER := 0

.PHONY: leaderboard smoke test test-recipes test-cluster check docs constraints bench setup clean chaos fuzz

leaderboard: setup
	@iadd run "$(CONFIG)" --cores $(CORES)
	@iadd show "$(CONFIG)"

smoke:
	@$(MAKE) --no-print-directory leaderboard CONFIG=config/smoke.yaml

test: setup
	@python -m pytest

# Every shipped benchmark from made-up files in its format to tables, at a tiny budget.
test-recipes: setup
	@python -m pytest -m recipe tests/test_recipes.py

# The README's cluster section on a SLURM of one node, started and ended here (apt install slurm-wlm munge).
test-cluster: setup
	@python -m pytest -rs -m cluster tests/cluster

# Faults done to whole runs, on the loopback address; ends by itself within half an hour.
chaos: setup
	@cd tests && python -m chaos

# Mutated files for every loader, 10,000 each: an hour or two of one core.
fuzz: setup
	@cd tests && python -m fuzz

check: setup
	ruff format --check .
	ruff check .
	mypy
	snakefmt --check workflow
	snakemake --lint --configfile config/smoke.yaml
	clang-format --dry-run --Werror $(wildcard csrc/*.cpp csrc/*.cu csrc/*.h)

# The versions of this environment, for others to install: make it anew first, in an empty VENV.
constraints: setup
	@python -m pip list --format=freeze --exclude iadd --exclude pip > constraints.txt

docs: setup
	python -m iadd.pipeline.config.docs > config/README.md

bench: setup
	@for script in weighted_distance outer_iteration experts evaluation matching; do \
	  python benchmarks/$$script.py || exit 1; done

# The environment, made once and again when what it depends on has changed.
setup: $(PACKAGES) $(VENV)/.extension

$(PACKAGES): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version)"; exit 2; }
	@test -x $(BIN)/python || { echo "Creating the environment $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing PyTorch (several GB with its CUDA libraries; a few minutes, once)"
	@python -m pip install -q $(PINNED) "torch>=2.11" torchvision ninja "setuptools>=77" wheel numpy
	@echo "Installing the other packages (over a hundred, some minutes, once)"
	@IADD_EXTENSION=0 python -m pip install -q $(PINNED) --no-build-isolation -e ".[workflow,search,watch,dev$(if $(CUDA),$(COMMA)cuda)]"
	@touch $@

$(VENV)/.extension: setup.py $(wildcard csrc/*) $(PACKAGES)
	@echo "Building the kernels (a minute or two, once)"
	@mkdir -p build && python setup.py -q build_ext --inplace > build/extension.log 2>&1 || \
	  { cat build/extension.log; exit 1; }
	@grep '^iadd\._C' build/extension.log
	@touch $@

clean:
	rm -rf build iadd/*.so results .snakemake
