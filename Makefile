# What people run is what CI runs. Needs make and Python 3.11 or newer, nothing else.
# PYTHON names the interpreter that .venv is made from: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# As the commands set it themselves: OpenMP threads that wait by spinning crawl on a machine that others use too.
export OMP_WAIT_POLICY ?= PASSIVE

# True in a Python that can hold the environment; the second also wants pip in it.
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
USABLE := import pip, sys; sys.exit(sys.version_info < (3, 11))

.PHONY: help demo study test torture lint docs bench clean

help:
	@echo "make demo   train k = 1, 2, 3 on the digits, probe every depth, draw the figure into demo/"
	@echo "make study  the whole separability study at its smallest, figures and tables, into demo/study"
	@echo "make test   run the tests (LAYERWISE_DATA=folder adds those that read real data sets)"
	@echo "make torture  kill commands, damage files, fill disks, and judge what comes of it (docs/reliability.md)"
	@echo "make lint   check style, format and types"
	@echo "make docs   build docs/ as a site with search, into site/"
	@echo "make bench  time what the project claims is fast"
	@echo "make clean  remove what these made, but not $(VENV)"
	@echo "The first of them makes $(VENV) with $(PYTHON) (PYTHON=... takes another, 3.11 or newer) and installs into it what it needs."

# What an aim needs is installed for it alone, so that the demo waits for no tool of the tests. A stamp for each goes
# first and comes last: an install that stops half-way is tried again.
define install
	@rm -f $@
	@$(BIN)/python -c '$(USABLE)' 2>/dev/null || { \
	  command -v "$(PYTHON)" >/dev/null || { \
	    echo "make: $(PYTHON) not found: Python 3.11 or newer is needed; name it with PYTHON=/path/to/python3" >&2; exit 1; }; \
	  "$(PYTHON)" -c '$(RECENT)' 2>/dev/null || { \
	    echo "make: $(PYTHON) is too old or does not run: Python 3.11 or newer is needed; name it with PYTHON=/path/to/python3" >&2; exit 1; }; \
	  echo "making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check --editable "$(1)"
	@touch $@
endef

$(STAMP): pyproject.toml
	$(call install,.)
$(STAMP)-%: pyproject.toml
	$(call install,.[$*])

# Two of them at once would write into one environment.
.NOTPARALLEL:

# A PYTHON that was asked for by name is never quietly another one.
ifneq ($(origin PYTHON),file)
$(STAMP) $(STAMP)-test $(STAMP)-dev $(STAMP)-docs: | same-python
endif
.PHONY: same-python
same-python:
	@test ! -e $(BIN)/python || { \
	  have="$$($(BIN)/python -V 2>&1)"; want="$$("$(PYTHON)" -V 2>&1)"; test "$$have" = "$$want" || { \
	    echo "make: $(VENV) has $$have, PYTHON=$(PYTHON) is $$want: rm -r $(VENV) lets it be made anew" >&2; exit 1; }; }

demo: $(STAMP)
	@mkdir -p demo
	$(BIN)/layerwise-train digits --k 1 --out demo/k1.h5 --force
	$(BIN)/layerwise-train digits --k 2 --out demo/k2.h5 --force
	$(BIN)/layerwise-train digits --k 3 --out demo/k3.h5 --force
	$(BIN)/probe-depth demo/k1.h5 --probe linear,cnn-1 --probe-width 32 --epochs 6
	$(BIN)/probe-depth demo/k2.h5 --probe linear,cnn-1 --probe-width 32 --epochs 6
	$(BIN)/probe-depth demo/k3.h5 --probe linear,cnn-1 --probe-width 32 --epochs 6
	$(BIN)/separability-figure demo/k1.h5 demo/k2.h5 demo/k3.h5 -o demo/separability.pdf --force
	@echo "done: runs demo/k*.h5, numbers demo/k*.probes.csv, figure demo/separability.pdf"

study: $(STAMP)
	$(BIN)/separability-study --budget smoke -o demo/study

test: $(STAMP)-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Goes on where it was stopped. TORTURE holds flags, say TORTURE="--only kills --kills 20".
torture: $(STAMP)-test
	$(BIN)/python -m tests.torture $(TORTURE)

lint: $(STAMP)-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(STAMP)-test
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

docs: $(STAMP)-docs
	$(BIN)/python -m mkdocs build --strict
	@echo "done: open site/index.html"

clean:
	rm -rf demo site build dist .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find layerwise probes analysis figures tests -name __pycache__ -type d -prune -exec rm -rf {} +
