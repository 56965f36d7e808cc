# Two commands do everything on a fresh machine with Python 3.10 or 3.11:
#   make table2   sets up .venv and fills in and prints Table 2   (options: make table2 ARGS="--profile smoke")
#   make test     sets up .venv and runs the tests                (options: make test ARGS="-k ranks")
# A CPU-only torch, several GB smaller than the default Linux wheel:
#   make test PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.10 || command -v python3)
PIP_ARGS ?=
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-from-constraints

.PHONY: help setup table2 test lint clean
help:
	@sed -n '1,5s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 12) else f"this project needs Python 3.10 or 3.11 (RecBole depends on ray<=2.6.3, which has no build for later ones), got {v[0]}.{v[1]} from $(PYTHON); install python3.11 or run: make PYTHON=/path/to/python3.11")'
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[all]"
	"$(BIN)/python" -m pip check --disable-pip-version-check
	@touch "$(STAMP)"

table2: $(STAMP)
	"$(BIN)/python" benchmarks/run_table2.py $(ARGS)

test: $(STAMP)
	"$(BIN)/python" -m pytest $(ARGS)

lint: $(STAMP)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

clean:
	rm -rf "$(VENV)" build dist *.egg-info
