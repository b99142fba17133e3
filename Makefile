# The only interface for people and CI. `make` alone prints this list.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SCRIPTS := src/lambda_deno_spawn/js src/lambda_deno_spawn/dev tests/js tests/native examples bench

.DEFAULT_GOAL := help
RELEASE := dist/release
NATIVE := src/lambda_deno_spawn/native/lib/.built

.PHONY: help install invoke js native test test-unit test-js test-integration test-long test-packages test-as-lambda coverage lint format typecheck check layers bench bench-check figures soak reference docs lock release first-minute types clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# Every file is compared with its digest. The locks are complete, so nothing is resolved,
# and this project's own build system is one of the packages.
LOCKED := $(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement

$(STAMP): pyproject.toml locks/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Cannot install: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	$(LOCKED) locks/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP) ## create .venv with everything, Deno's binary included

invoke: $(NATIVE) ## run the hello example through the real runtime and print its result
	$(BIN)/lambda-deno-spawn invoke examples/hello --event @examples/hello/event.json

# Files of tests are shared out, three for each core, as many wait for deadlines to pass; in
# the order of tests/conftest.py, so that the short ones of tests/unit come last.
PARALLEL = -n $(shell $(PYTHON) -c 'import os; print(3 * (os.cpu_count() or 1))') \
  --dist loadfile --no-loadscope-reorder
# Each worker would compile every test, and each command itself, again.
unexport PYTHONDONTWRITEBYTECODE


$(NATIVE): $(STAMP) $(wildcard src/lambda_deno_spawn/native/*.[ch])
	$(BIN)/python -m lambda_deno_spawn.dev.package.native
	@touch $@

native: $(NATIVE) ## the library that forks Deno, for both architectures

MEASURED := --cov=lambda_deno_spawn --cov-branch --cov-report=
COVERED := $(BIN)/coverage report --fail-under=100 --show-missing \
  --include='*/lambda_deno_spawn/errors.py,*/invocation.py,*/protocol/frames.py,*/lambda_deno_spawn/config.py,*/permissions.py,*/protocol/hello.py,*/serving/metrics.py,*/serving/pool.py,*/http/http1.py'

# COVERAGE=on: what `make coverage` finds, without running the unit tests again.
test: $(NATIVE) ## all unit tests, and integration tests but for the long ones
	$(BIN)/python -m pytest $(PARALLEL) -m 'not aws and not long' $(if $(COVERAGE),$(MEASURED))
	$(if $(COVERAGE),$(COVERED))

test-long: $(NATIVE) ## the others: more parameters and ways, soaks, guides, installations, kills at each step
	$(BIN)/python -m pytest $(PARALLEL) -m 'long and not aws'

test-unit: $(STAMP) test-js ## the fast ones: no process, no socket
	$(BIN)/python -m pytest tests/unit

test-js: $(STAMP) ## the JavaScript modules, each by itself
	$(BIN)/deno test --no-config --allow-read --reporter=dot tests/js

test-integration: $(NATIVE) ## real Deno, real HTTP, AWS's emulator
	$(BIN)/python -m pytest $(PARALLEL) tests/integration

test-packages: $(NATIVE) ## popular npm packages in every form of a package, into docs/packages.md; minutes
	$(BIN)/python -m tests.packages -o docs/packages.md

# 69: this machine cannot do it. That is no failure for people; for CI it is.
test-as-lambda: $(NATIVE) ## the runtime's tests again, without privileges on a read-only root; needs root
	$(BIN)/python -m tests.fixtures.downloads
	$(BIN)/python -m tests.as_lambda $(BIN)/python -m pytest -m as_lambda $(PARALLEL) -p no:cacheprovider -rs \
	  || { code=$$?; [ $$code -eq 69 ] && [ -z "$$CI" ]; }

coverage: $(STAMP) ## every branch of the pure core is tested by unit tests
	$(BIN)/python -m pytest $(PARALLEL) tests/unit --quiet $(MEASURED)
	$(COVERED)

js: $(STAMP) ## write js/runtime.js from the modules in js/src
	$(BIN)/python src/lambda_deno_spawn/js/src/build.py

lint: $(STAMP) ## ruff, deno fmt, deno lint, deno check; are js/runtime.js and the reference up to date?
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml examples/ci/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --quiet --offline --no-progress .github
	$(BIN)/deno fmt --check --quiet $(SCRIPTS)
	$(BIN)/deno lint --quiet $(SCRIPTS)
	$(BIN)/python src/lambda_deno_spawn/js/src/build.py --check
	$(BIN)/python -m docs.site.reference --check
	$(BIN)/deno check --quiet src/lambda_deno_spawn/js/*.js src/lambda_deno_spawn/js/src/*.js src/lambda_deno_spawn/dev/bench/*.js src/lambda_deno_spawn/dev/doctor/*.js src/lambda_deno_spawn/dev/package/*.js src/lambda_deno_spawn/js/*.d.ts tests/js/*
	@# examples/deploy has no scripts.
	@for example in $(filter-out examples/deploy/,$(wildcard examples/*/)); do (cd $$example && ../../$(BIN)/deno check --quiet .) || exit 1; done

format: $(STAMP) ## rewrite files the way lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/deno fmt --quiet $(SCRIPTS)

typecheck: $(STAMP) ## mypy --strict over src, tests and bench
	$(BIN)/mypy

check: COVERAGE := on
check: lint typecheck docs test test-long test-as-lambda ## exactly what CI runs

layers: $(NATIVE) ## the deno and the runtime layer for both architectures, in dist/
	$(BIN)/lambda-deno-spawn layer build --arch both

bench: $(STAMP) ## ratios, measured side by side in one run
	$(BIN)/python -m bench

bench-check: $(STAMP) ## the same, compared with the ratios in bench/ratios.json
	$(BIN)/python -m bench.check

figures: $(STAMP) ## run the benchmarks and draw the pictures of docs/ from them
	$(BIN)/python -m bench -o json > docs/performance.json
	$(BIN)/python -m bench.plot docs/performance.json docs

# All but the first three need root.
SOAKED := $(BIN)/python -m tests.soak events --unprivileged
soak: $(STAMP) ## 100,000 fuzzed streams, 10,000 fuzzed answers, 80,000 events (hours; root)
	$(BIN)/python -m tests.soak frames
	$(BIN)/python -m tests.soak responses
	$(BIN)/python -m tests.soak events
	$(SOAKED) --memory 128 --frozen
	$(SOAKED) --memory 128 --frozen --permissions default
	$(SOAKED) --memory 128 --frozen --fork
	$(SOAKED) --memory 128 --frozen --permissions default --fork
	$(SOAKED) --memory 256 --concurrency 8
	$(SOAKED) --memory 256 --concurrency 8 --permissions default
	$(SOAKED) --memory 256 --concurrency 8 --strategy server --permissions default

reference: $(STAMP) ## write the tables of docs/ that come from the code
	$(BIN)/python -m docs.site.reference

docs: $(STAMP) ## the documentation site, into dist/site; any warning is a failure
	# With --quiet, MkDocs does not count warnings, and --strict has no effect.
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

$(VENV)/.release: $(STAMP) locks/release.txt
	$(LOCKED) locks/release.txt
	@touch $@

lock: $(VENV)/.release ## write locks/ from pyproject.toml; UPGRADE=1 for newer versions
	$(BIN)/python -m tests.release.lock $(if $(UPGRADE),--upgrade)

# Twice the same bytes: times in the archives are those of the last commit.
release: export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)
release: $(NATIVE) $(VENV)/.release ## wheel, sdist, list of components and notes, checked, into dist/release
	rm -rf $(RELEASE)
	$(BIN)/python -m build --wheel --sdist --no-isolation --outdir $(RELEASE) .
	$(BIN)/twine check --strict $(RELEASE)/*
	$(BIN)/python -m tests.release.packages $(RELEASE)
	$(PYTHON) -m venv --without-pip $(RELEASE)/.installed
	$(BIN)/python -m pip --python $(RELEASE)/.installed install --quiet --require-hashes --no-deps --requirement locks/cli.txt
	$(BIN)/python -m pip --python $(RELEASE)/.installed install --quiet --no-deps $(RELEASE)/*.whl
	$(BIN)/python -m tests.release.components $(RELEASE)/.installed $(RELEASE)/sbom.cdx.json
	rm -rf $(RELEASE)/.installed
	cd $(RELEASE) && sha256sum *.whl *.tar.gz *.json > SHA256SUMS

first-minute: $(VENV)/.release ## README's first minute, in an empty place with Python alone: each step timed
	$(BIN)/python -m tests.release.first_minute

types: ## types for handlers as an npm package, into dist/release; needs npm
	mkdir -p $(RELEASE)
	cd types && npm pack --silent --pack-destination ../$(RELEASE)
	cd $(RELEASE) && sha256sum -- *.tgz > SHA256SUMS.types

clean: ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache dist
