# Backhaul: the commands of a day's work. `make help` lists them; none needs root or a service of its own.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

HOST ?= 127.0.0.1
PORT ?= 8080
SEEDS ?= 0:2000

BIN := .venv/bin
# Two at a time: each process has a PostgreSQL of its own, and two fit any machine.
PYTEST := $(BIN)/python -m pytest -n 2

export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.installed ## create .venv and install what the lock file names; skipped when nothing changed

# The project itself comes without its dependencies (the lock has named them all, with hashes) and is built by the
# setuptools of the lock, so nothing unpinned is fetched.
.venv/.installed: requirements.lock pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/python:
	@python= ; \
	for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	    if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Backhaul needs Python 3.11 or newer, and none is on PATH." >&2; exit 1; \
	fi; \
	echo "Creating .venv with $$("$$python" --version)"; \
	if ! "$$python" -m venv .venv; then \
	    rm -rf .venv; \
	    echo "$$python could not create a virtual environment with pip (see above)." >&2; \
	    echo "Debian and Ubuntu keep that part in the package python3-venv; any other Python 3.11+ on PATH will do." >&2; \
	    exit 1; \
	fi

.PHONY: run
run: setup ## start the server, and two technicians who live through a day offline (PORT=8080 HOST=127.0.0.1)
	@exec $(BIN)/backhaul run --demo --host $(HOST) --port $(PORT)

.PHONY: test
test: lint ## check the code, then run the default test suite on a real PostgreSQL
	$(PYTEST)

.PHONY: lint
lint: setup ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir .cache/import-linter

.PHONY: format
format: setup ## sort the imports and format the code
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

.PHONY: simulation
simulation: setup ## run random histories of devices and faults (SEEDS=0:2000)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

.PHONY: simulation-postgres
simulation-postgres: setup ## the same on PostgreSQL (SEEDS=0:200)
	$(BIN)/python -m tests.simulation --store postgres --seeds $(if $(filter file,$(origin SEEDS)),0:200,$(SEEDS)) \
	    --out build/simulation-postgres.json

.PHONY: simulation-bugs
simulation-bugs: setup ## put bugs into the code, and see that the simulation finds them
	$(BIN)/python -m tests.simulation.bugs

# The hashes must be those of the public index, so neither pip's settings nor local wheels of this machine count.
.PHONY: lock
lock: $(BIN)/python ## write requirements.lock anew from pyproject.toml
	$(BIN)/python -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet --disable-pip-version-check 'pip-tools>=7.6'
	env -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null .cache/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe \
	    --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    --extra server --extra dev --output-file requirements.lock pyproject.toml

.PHONY: clean
clean: ## remove what the other targets made, the embedded database in .backhaul excepted
	rm -rf .venv .cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
