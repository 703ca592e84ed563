# Every target does all the set-up it needs and reuses what is there: .venv/ from the hashed lock, powerd itself
# (editable), and powerd/v1 generated from protos/. A machine with Python >= 3.11, make and a package registry is enough.

PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= 2
BENCH ?=
SEEDS ?= 0:2000
RESULTS ?=
COVERED ?=
SITE ?= models/two_feeder_depot

VENV := .venv
BIN := $(VENV)/bin
PROTOS := protos/powerd/v1
UV_COMPILE := uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help setup run test test-slow faults-real sequences test-setup lint format bench protos released lock clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.powerd powerd/v1/__init__.py  ## the environment, powerd in it, and the generated code

run: setup  ## serve a real garage and replay a recorded week of cars against it
	$(BIN)/powerd serve models/caltech_garage --replay models/caltech_garage/sessions/caltech_2019-05-06_5d.csv

test: setup  ## the tests, without the long proofs; WORKERS=N processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not setup" $(PYTEST_ARGS)

test-slow: setup  ## the long proofs
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

faults-real: setup  ## hours of faults against the real daemon: 500 kills under 1 000 posts, 1 000 reconnects at once
	$(BIN)/python -m pytest -s -m slow tests/faults $(PYTEST_ARGS)

test-setup: setup  ## powerd installed into empty environments outside of this folder
	$(BIN)/python -m pytest -m setup $(PYTEST_ARGS)

faults: setup  ## the fault simulation; SEEDS=FIRST:LAST, RESULTS=FILE adds up over runs, COVERED=SHARE checks the floors
	$(BIN)/python -m powerd.sim.faults --seeds $(SEEDS) $(if $(RESULTS),--results $(RESULTS)) \
		$(if $(COVERED),--covered $(COVERED))

sequences: setup  ## random outages, returns, refusals, lies; SEEDS=FIRST:LAST, SITE=FOLDER, RESULTS=FILE adds up
	$(BIN)/powerd study sequences $(SITE) --seeds $(SEEDS) --jobs 2 $(if $(RESULTS),--results $(RESULTS))

models-checked: setup  ## the Promela models, exhaustively; needs spin (installs it where it can)
	$(BIN)/python -m pytest -m setup -s tests/promela

lint: setup  ## ruff, mypy --strict, buf
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/released.binpb

format: setup  ## let ruff format and mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup  ## the benchmarks; BENCH=NAME for one of them
	$(BIN)/python -m bench $(BENCH)

protos: $(VENV)/.lock  ## regenerate powerd/v1 now
	$(BIN)/python protos/generate.py

released: setup  ## declare the API as it stands released: from now on buf breaking holds it
	$(BIN)/buf build -o protos/released.binpb

lock: setup  ## rewrite requirements.lock (UPGRADE=1: with the newest versions)
	$(BIN)/$(UV_COMPILE) $(if $(UPGRADE),--upgrade) -q -o requirements.lock

clean:  ## remove everything that setup, tests and builds made
	rm -rf $(VENV) powerd/v1 build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find powerd tests bench protos -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "powerd needs Python 3.11 or newer and found $$($(PYTHON) --version); say make PYTHON=/path/to/python3.11"; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.lock: requirements.lock $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.powerd: pyproject.toml hatch_build.py $(VENV)/.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The folder itself is a prerequisite: a .proto added or removed changes its time.
powerd/v1/__init__.py: protos/generate.py $(PROTOS) $(wildcard $(PROTOS)/*.proto) $(VENV)/.lock
	$(BIN)/python protos/generate.py > /dev/null
