# The only interface for people and CI. `make` alone prints this list.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SCRIPTS := src/lambda_deno_spawn/js tests/js examples bench

.DEFAULT_GOAL := help
.PHONY: help install invoke test test-unit test-integration coverage lint format typecheck check bench figures clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Cannot install: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cli]" --group dev
	@touch $@

install: $(STAMP) ## create .venv with everything, Deno's binary included

invoke: $(STAMP) ## run the hello example through the real runtime and print its result
	$(BIN)/lambda-deno-spawn invoke examples/hello --event @examples/hello/event.json

test: $(STAMP) ## all tests: unit and integration
	$(BIN)/python -m pytest

test-unit: $(STAMP) ## the fast ones: no process, no socket
	$(BIN)/python -m pytest tests/unit

test-integration: $(STAMP) ## real Deno, real HTTP, AWS's emulator
	$(BIN)/python -m pytest tests/integration

coverage: $(STAMP) ## every branch of the pure core is tested
	$(BIN)/python -m pytest tests/unit --quiet --cov=lambda_deno_spawn --cov-branch --cov-report=
	$(BIN)/coverage report --fail-under=100 --show-missing \
	  --include='*/lambda_deno_spawn/errors.py,*/invocation.py,*/protocol.py,*/lambda_deno_spawn/config.py,*/permissions.py'

lint: $(STAMP) ## ruff, deno fmt, deno lint, deno check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deno fmt --check --quiet $(SCRIPTS)
	$(BIN)/deno lint --quiet $(SCRIPTS)
	$(BIN)/deno check --quiet src/lambda_deno_spawn/js/*.js src/lambda_deno_spawn/js/*.d.ts tests/js/*
	@for example in examples/*/; do (cd $$example && ../../$(BIN)/deno check --quiet .) || exit 1; done

format: $(STAMP) ## rewrite files the way lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/deno fmt --quiet $(SCRIPTS)

typecheck: $(STAMP) ## mypy --strict over src, tests and bench
	$(BIN)/mypy

check: lint typecheck coverage test ## exactly what CI runs

bench: $(STAMP) ## ratios, measured side by side in one run
	$(BIN)/python -m bench

figures: $(STAMP) ## run the benchmarks and draw docs/performance.svg from them
	$(BIN)/python -m pip install --quiet --group plot
	$(BIN)/python -m bench -o json > docs/performance.json
	$(BIN)/python -m bench.plot docs/performance.json docs/performance.svg

clean: ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache dist
