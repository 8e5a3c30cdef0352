# Each target makes what it needs: a fresh clone asks for Python 3.11 or newer and make, and for nothing else.

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTS ?= tests
PYTEST := -m pytest -n auto --maxprocesses 4 --dist loadfile

# The first Python that runs and can make environments; PYTHON=/path/to/python chooses another.
USABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(USABLE)' >/dev/null 2>&1 && echo $(p))))

DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
DEMO_SUBMISSIONS := nesterov adamw lion schedule_free_adamw

# The Docker image: BASE is any image with Python 3.11 and its venv, JAX is cpu or cuda12.
BASE ?= python:3.11-slim
JAX ?= cpu
DOCKER_ARGS ?=

.PHONY: demo test test-all slurm-test lint types wheel-test docker docker-test clean

demo: $(INSTALLED)  ## four training algorithms on three workloads, and their leaderboard (about 5 minutes)
	$(BIN)/timetrial run --ruleset demo $(DEMO_SUBMISSIONS:%=--submission %) --out $(DEMO)
	$(BIN)/timetrial score $(DEMO) --allow-mixed --out $(DEMO)/scores
	$(BIN)/timetrial report $(DEMO) --allow-mixed

test: $(INSTALLED)  ## all but the slow tests and Docker's; TESTS=tests/unit runs fewer
	$(BIN)/python $(PYTEST) -m 'not slow and not docker' $(TESTS)

test-all: $(INSTALLED) wheel-test  ## every test
	$(BIN)/python $(PYTEST) $(TESTS)

slurm-test: $(INSTALLED)  ## campaigns on a real Slurm of two nodes, started here; needs root, slurm-wlm and munge
	$(BIN)/python -m pytest -m slurm tests/e2e/test_slurm.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/pyright

wheel-test: $(INSTALLED)  ## builds the wheel and runs a trial from it, outside the checkout
	tests/e2e/wheel.sh $(BIN)/python

docker:  ## builds the image of `timetrial run --docker`; DOCKER_ARGS='--secret ...' goes to `docker build`
	DOCKER_BUILDKIT=1 docker build --file docker/Dockerfile --tag timetrial \
	  --build-arg BASE=$(BASE) --build-arg JAX=$(JAX) \
	  --label org.opencontainers.image.version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	  --label org.opencontainers.image.revision=$$(git describe --always --dirty 2>/dev/null) $(DOCKER_ARGS) .

docker-test: $(INSTALLED)  ## builds the image on a Docker daemon of its own, and tests it (as root, on Debian)
	docker/test.sh $(BIN)/python

$(INSTALLED): pyproject.toml hatch_build.py
	@test -n '$(PYTHON)' || { echo 'make: no Python 3.11 or newer with ensurepip found; try make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -c '$(USABLE)' || { echo 'make: $(PYTHON) is no Python 3.11 or newer with ensurepip' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[mini,dev]'
	@touch $@

clean:  ## leaves runs/ alone
	rm -rf .venv* build dist .pytest_cache .ruff_cache .hypothesis
	find src scoring workloads submissions tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
