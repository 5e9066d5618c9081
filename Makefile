# Everything sets itself up: `make demo` on a fresh machine installs, makes a synthetic cohort, trains and reports.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)
DEMO := runs/demo
COHORTS := runs/demo-cohorts

.PHONY: install demo demo-short test test-long soak lint clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("STSMM needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# PyTorch first and by its exact version, so that no other package's wish decides which build is taken.
	$(PIP) torch
	$(PIP) --editable '.[dev,compare]'
	touch $@

$(COHORTS): | $(INSTALLED)
	$(BIN)/stsmm cohort synth $@ --sites 3 --patients 900 --seed 0

demo: $(COHORTS) | $(INSTALLED)
	$(BIN)/stsmm simulate configs/demo.toml --cohort $(COHORTS) --out $(DEMO)

# The same path in a minute or two: fewer patients, fewer rounds.
demo-short: | $(INSTALLED)
	test -d runs/demo-short-cohorts || $(BIN)/stsmm cohort synth runs/demo-short-cohorts --sites 3 --patients 90 --seed 0
	$(BIN)/stsmm simulate configs/demo_short.toml --cohort runs/demo-short-cohorts --out runs/demo-short

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto -m "not long and not soak"

test-long: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

soak: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak -s

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) runs
