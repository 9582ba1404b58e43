# Each target prepares .venv by itself, from nothing, and only when the pins or the project file changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: venv demo demo-clean test test-all lint clean
.DELETE_ON_ERROR:

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	  || { echo "segloc needs Python 3.11 or 3.12; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[eval,imagenet,dev]'
	@# Both builds of OpenCV get installed by dependencies; the headless one goes on top, as it needs no libGL.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --force-reinstall --no-deps opencv-python-headless
	touch $@

demo: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo.sh

demo-clean:
	rm -rf demo demo-*

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: demo-clean
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
