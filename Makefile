# Everything runs from .venv. The first target that needs it creates it, from PyPI.
PYTHON ?= python3
PORT ?= 8000
# Arguments for the command: make demo ARGS="--once", make test ARGS="-k barge_in".
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PYTEST ?= $(BIN)/python -m pytest
# Most tests wait for calls in real time, so more workers than cores are faster. ARGS="-n0" uses one process.
WORKERS ?= 4
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
MANAGE := $(BIN)/python manage.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo run test test-fast check fmt bench faults shots speech lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s%s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed ## place a complete simulated call: no account, no network
	@$(MANAGE) demo $(ARGS)

run: $(VENV)/.installed .env ## run the server with your .env, on port 8000 (PORT=)
	@$(MANAGE) migrate --verbosity 0
	@exec $(MANAGE) serve --port $(PORT)

test: $(VENV)/.installed-dev ## run the tests (ARGS= is passed to pytest)
	$(PYTEST) -n $(WORKERS) $(ARGS)

test-fast: $(VENV)/.installed-dev ## run the tests of the product that use no database and start no process
	$(PYTEST) -n 2 -m "not slow and not database and not live" bridge calls voiceai $(ARGS)

check: $(VENV)/.installed-dev ## run linter, format check, type checker, system checks, migration check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bridge calls sandbox voiceai bench manage.py conftest.py
	DJANGO_DEBUG=on $(MANAGE) check --fail-level WARNING
	DJANGO_DEBUG=on $(MANAGE) makemigrations --check --dry-run

fmt: $(VENV)/.installed-dev ## format the code and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## measure audio quality, journal cost and load
	$(BIN)/python -m bench $(ARGS)

faults: $(VENV)/.installed-dev ## stage faults against a server, a line each (ARGS="F4 F12" for some)
	$(BIN)/python -m bench.faults $(ARGS)

shots: $(VENV)/.installed-dev ## take screenshots of the staff pages into docs/shots (needs chromium)
	DJANGO_SETTINGS_MODULE=voiceai.settings $(BIN)/python -m calls.tests.browser.shots

speech: $(VENV)/.installed-speech ## install speech recognition for the simulated assistant

lock: ## pin all packages again, from pyproject.toml (needs uv)
	@$(foreach extra,none dev speech,$(call compile,$(extra)))

clean: ## remove .venv and the caches of tools; keeps var/ and .env
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*

# --- The environment ----------------------------------------------------------------------------

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is required. Name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot create virtual environments. On Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.installed: requirements.txt | $(VENV)/pyvenv.cfg
	@echo "Installing into $(VENV) (once, about a minute) ..."
	@$(PIP) -r $< && touch $@

# requirements-dev.txt includes the packages of requirements.txt.
$(VENV)/.installed-dev: requirements-dev.txt | $(VENV)/pyvenv.cfg
	@echo "Installing with development tools into $(VENV) (once, a minute or two) ..."
	@$(PIP) -r $< && touch $@

$(VENV)/.installed-speech: requirements-speech.txt | $(VENV)/pyvenv.cfg
	@echo "Installing the speech extra into $(VENV) ..."
	@$(PIP) -r $< && touch $@

.env:
	@echo "There is no .env file. Run: cp .env.example .env, then fill in your keys." >&2; exit 1

# $(call compile,EXTRA): requirements[-EXTRA].txt from pyproject.toml. Pinned versions stay, unless
# pyproject.toml forbids them. make lock UPGRADE=--upgrade takes the newest version of everything.
pinned = requirements$(if $(filter none,$1),,-$1).txt
define compile
{ echo "# Compiled from pyproject.toml by \`make lock\`; do not edit."; \
  uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate $(UPGRADE) \
    $(if $(filter none,$1),,--extra $1) --constraint $(pinned) pyproject.toml; } > $(pinned).new \
  && mv $(pinned).new $(pinned) || { rm -f $(pinned).new; exit 1; };
endef
