# Two commands: `make session` and `make demo`. The rest is for developers.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# What builds us and the dependencies that come as source (PIMS needs setuptools with wheel), pinned like the rest.
BUILD  := setuptools wheel hatchling editables

.PHONY: session demo setup test docs bench soak lint format clean help

help:            ## what there is
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

# Reinstalled only when what is to be installed changed.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once; a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(BUILD)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@$(BIN)/python -m compileall -q instrument virtual_beamline  # as pip does with what it installs
	@touch $(STAMP)

setup: $(STAMP)  ## make .venv with pinned dependencies

session: $(STAMP)  ## an IPython session on the virtual beamline
	@export PYTHONPATH=$(CURDIR)/user$${PYTHONPATH:+:$$PYTHONPATH}; exec $(BIN)/instrument session  # exec: a shell would die of Ctrl-\

demo: $(STAMP)   ## the same without a keyboard
	@$(BIN)/instrument demo

test: $(STAMP)   ## everything CI checks
	@$(BIN)/python -m tests.gate $(TESTARGS)

lint: $(STAMP)   ## ruff, pyright, import-linter
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: $(STAMP)   ## the site, docs/_build/html/index.html; warnings are errors
	@$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs docs/_build/html

bench: $(STAMP)  ## each budget beside what it measured; exits 1 on a miss
	@$(BIN)/python -m benchmarks $(BENCHARGS)

soak: $(STAMP)   ## the long ones
	@$(BIN)/python -m pytest tests -m soak -p no:xdist $(TESTARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info
