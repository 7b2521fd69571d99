# The targets for people; `make help` lists them. Each sets up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-all check format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[learn,text,web,dev]'
	touch $@

demo: $(VENV)/ready  ## train, evaluate and report on the embedded region codes (three minutes)
	$(BIN)/lesa demo --out demo --photos examples/photos/labels.csv

test: $(VENV)/ready  ## the tests (under ten minutes)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/ready  ## the tests, also the ones that take longer
	$(BIN)/python -m pytest

check: $(VENV)/ready  ## style, types and the commands in the documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_documents.py

format: $(VENV)/ready  ## write the style that `make check` asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and what the demo wrote
	rm -rf $(VENV) demo build src/*.egg-info
