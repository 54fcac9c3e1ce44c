# Everything a newcomer or a CI machine runs. It needs make, Python 3.11 or newer and the package index, and no compiler.
# Kept to what GNU make 3.81 understands: it is the one that macOS ships.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORE := $(VENV)/.core
RUN := $(BIN)/python

# `make PYTHON=python3.12 ...` decides which interpreter the environment is made with.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 python3.12 python3.11 python3 python)

# auto: compile the core where there is a compiler; require: fail without one; off: leave it as it is.
TASKLETS_BUILD ?= auto

# More arguments for the tool behind a target: make test ARGS="-k deadlock -x"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test compiled check bench tutorial notebooks format clean find-python

help: ## this list
	@echo 'usage: make TARGET [PYTHON=python3.12] [ARGS="more arguments"]'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'Each target first makes $(VENV), when it is missing or older than pyproject.toml. New here? Start with: make demo'

demo: $(CORE) ## the prime search and the ATM network, in one process, in several and over TCP
	@$(RUN) -m examples.demo $(ARGS)

# The core has two forms. Its own tests (but those of kernels, to which it is all the same) run on its source first, where
# they say more; then everything runs on the compiled one, if there is one. 5 is pytest's way to say that none of the tests
# was selected, here by ARGS.
# Most tests wait for processes, so two run at a time (pytest-xdist); one at a time, and for --pdb: make test ARGS=-n0.
# worksteal and not loadfile: a process that a hung test has taken down leaves its tests to the others.
# Of net, what tests the compiled modules one by one, and all of them together.
PURE_NET := $(patsubst %,tests/net/test_%.py,apart bounds codec protocol session vectors window references channel_contract)

TWO := -n 2 --dist worksteal

test: $(CORE) ## all tests; one of them: make test ARGS="-k deadlock"
	@if ls tasklets/_core*.so >/dev/null 2>&1; then \
	  TASKLETS_PURE=1 $(RUN) -m pytest -q $(TWO) tests/tasklets $(PURE_NET) --ignore tests/tasklets/test_jupyter.py $(ARGS) || [ $$? -eq 5 ]; \
	fi
	@$(RUN) -m pytest -q $(TWO) $(ARGS)

compiled: ## compile the core, which takes a C compiler, and run all tests
	@rm -f $(CORE)
	@$(MAKE) --no-print-directory TASKLETS_BUILD=require test

check: $(STAMP) ## format, lint, types and the direction of imports; changes nothing
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(BIN)/lint-imports --no-logo

bench: $(CORE) ## the measurements in benchmarks/, one after the other
	@for script in benchmarks/bench_*.py; do \
	  echo "== $$script"; \
	  PYTHONPATH="$(CURDIR)" $(RUN) "$$script" $(ARGS) || exit 1; \
	done

tutorial: $(VENV)/.tutorial $(CORE) ## the tutorial, in JupyterLab, in your browser
	@$(BIN)/jupyter trust tutorial/*.ipynb tutorial/solutions/*.ipynb >/dev/null  # else their pictures are hidden
	@$(BIN)/jupyter lab --ServerApp.root_dir=tutorial --LabApp.default_url=/lab/tree/00_start_here.ipynb $(ARGS)

notebooks: $(CORE) ## run the notebooks of the tutorial and keep what they show; new figures: ARGS=--measure
	@$(RUN) -W ignore tutorial/regenerate.py $(ARGS)

format: $(STAMP) ## put the code into the common form and mend what can be mended by machine
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

clean: ## remove what can be made again: the environment, caches, builds
	@rm -rf "$(VENV)" build dist *.egg-info tasklets/_core*.so net/_*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Sets $$python to the first candidate that is new enough and can make environments. Each one is run, not looked up:
# version managers put a python3.13 on the path that only prints an error. $$old and $$bare remember the near misses.
FIND_PYTHON = \
	python=; old=; bare=; \
	for candidate in $(CANDIDATES); do \
	  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null) || continue; \
	  if ! "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    old="$$old $$candidate ($$version)"; \
	  elif ! "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then \
	    bare="$$bare $$candidate ($$version)"; \
	  else \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  if [ -n "$$bare" ]; then \
	    echo "make: cannot make an environment with$$bare: its venv and ensurepip modules are missing." >&2; \
	    echo "      On Debian and Ubuntu: apt install python3-venv (or python3.12-venv and the like); then make again." >&2; \
	  else \
	    echo "make: no Python 3.11 or newer among:" $(CANDIDATES) "$${old:+(too old:$$old)}" >&2; \
	    echo "      Install one, or name yours: make PYTHON=/path/to/python3.12 ..." >&2; \
	  fi; \
	  exit 1; \
	fi

find-python:
	@$(FIND_PYTHON); echo "$$python"

# The stamp is written last, so that an interrupted installation is made again. An environment whose interpreter is gone
# (the system's Python was replaced) is rebuilt; one that works is only brought up to date.
ifneq ($(shell test -x "$(RUN)" && echo there),there)
.PHONY: $(STAMP)
endif
$(STAMP): pyproject.toml $(wildcard setup.py)
	@if ! "$(RUN)" -m pip --version >/dev/null 2>&1; then \
	  $(FIND_PYTHON); \
	  echo "making $(VENV) with $$python ($$version)"; \
	  "$$python" -m venv --clear "$(VENV)" || { \
	    echo "make: '$$python -m venv $(VENV)' failed, see above. Remove $(VENV) and try another: make PYTHON=... ..." >&2; exit 1; }; \
	fi
	@echo "installing tasklets and its tools into $(VENV) (a minute, once)"
	@TASKLETS_BUILD=off "$(RUN)" -m pip install --quiet --disable-pip-version-check --no-input -e '.[dev]' >"$(VENV)/install.log" 2>&1 </dev/null || { \
	  tail -n 20 "$(VENV)/install.log" >&2; \
	  echo "make: the installation failed; all of pip's words are in $(VENV)/install.log." >&2; \
	  echo "      Is the package index reachable? After mending it, run make again; for a fresh start: make clean." >&2; \
	  exit 1; }
	@touch "$@"

# Compiling takes half a minute. A compiled core that is older than its source would be left aside, with a warning.
# The modules of net that are compiled, too, as net/_hot.py has them.
HOT := _apart _bulk _codec _entries _exports _grants _landing _large _link _protocol _references _runway _session _window

$(CORE): $(STAMP) setup.py tasklets/_core.py tasklets/_core.pxd tasklets/_data_stack.h net/_made_of.h $(HOT:%=net/%.py) $(wildcard net/_*.pxd)
	@echo "compiling the core and the hot path of net (a minute; works without, but slower)"
	@rm -rf build tasklets/_core*.so net/_*.so
	@TASKLETS_BUILD=$(TASKLETS_BUILD) "$(RUN)" setup.py --quiet build_ext --inplace --force --parallel=2 >"$(VENV)/core.log" 2>&1 </dev/null || { \
	  tail -n 20 "$(VENV)/core.log" >&2; \
	  echo "make: the core could not be compiled; all of the compiler's words are in $(VENV)/core.log" >&2; \
	  exit 1; }
	@$(RUN) -c 'import warnings; warnings.simplefilter("ignore"); import tasklets._which_form as which; print("the core is compiled" if which.is_compiled() else "no compiled core (see $(VENV)/core.log); going on without")'
	@touch "$@"

$(VENV)/.tutorial: $(STAMP)
	@echo "installing JupyterLab into $(VENV) (a minute, once)"
	@TASKLETS_BUILD=off "$(RUN)" -m pip install --quiet --disable-pip-version-check --no-input -e '.[tutorial]' >>"$(VENV)/install.log" 2>&1 </dev/null || { \
	  tail -n 20 "$(VENV)/install.log" >&2; \
	  echo "make: the installation failed; all of pip's words are in $(VENV)/install.log." >&2; \
	  exit 1; }
	@"$(BIN)/jupyter" labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements >/dev/null 2>&1
	@touch "$@"
