# podtool: `make demo` hears it work, `make test` proves it. Everything is set up on first use.
#
#   make demo                                   the demo episode, one speaker in another voice
#   make demo EPISODE=my.mp3 VOICE=ref.wav SPEAKER=S1 [CONSENT="..."]     your own
#   make test      ruff, mypy, all tests        make quick     the fast tests (< 1 min)
#   make figures   every figure of docs/figures.md, measured again
#
#   TORCH_INDEX=URL   take torch from another index
#   PYTHON=python3.12 another Python           VENV=dir        another place for the environment
#   EXTRAS=dev,speak  the extras that `make test` installs

VENV ?= .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TOUCHED := pyproject.toml constraints.txt
FIND_PYTHON := for p in python3.11 python3.12 python3.13 python3.14 python3; do \
  $$p -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null && { echo $$p; break; }; done
PYTHON ?= $(shell $(FIND_PYTHON))

.DELETE_ON_ERROR:
.PHONY: help install install-dev models demo test lint quick figures clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "podtool needs Python 3.11 or newer; name it: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: constraints.txt | $(BIN)/python
ifdef TORCH_INDEX
	$(PIP) install -q -c constraints.txt torch --index-url $(TORCH_INDEX)
endif
	@touch $@

$(VENV)/.base: $(TOUCHED) $(VENV)/.torch
	@$(BIN)/python examples/check_compiler.py
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.extras-$(EXTRAS): $(TOUCHED) $(VENV)/.torch
	@$(BIN)/python examples/check_compiler.py
	$(PIP) install -q -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@ $(VENV)/.base

install: $(VENV)/.base

install-dev: $(VENV)/.extras-$(EXTRAS)

models: install
	$(BIN)/podtool models pull embedded

ifdef EPISODE
demo: models
	@test -n "$(VOICE)" || { echo "make demo EPISODE=... also needs VOICE=reference.wav" >&2; exit 2; }
	$(BIN)/python examples/demo.py --episode "$(EPISODE)" --voice "$(VOICE)" \
	  $(if $(SPEAKER),--speaker "$(SPEAKER)") $(if $(CONSENT),--consent "$(CONSENT)")
else
demo: models
	$(BIN)/python examples/demo.py
endif

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/podtool models pull embedded evaluation
	$(BIN)/python -m pytest -q

quick: install-dev
	$(BIN)/python -m pytest -q -m "not slow and not models"

figures: install-dev
	$(BIN)/podtool models pull embedded evaluation
	$(BIN)/python benchmarks/figures.py

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
