# Every target makes its own set-up first: `make demo` and `make test` work in a fresh clone.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export DAGSTER_HOME := $(CURDIR)/.dagster
SETUP := .venv/.installed

$(SETUP): constraints.txt pyproject.toml
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.dagster/dagster.yaml: deploy/local/dagster.yaml
	@mkdir -p .dagster
	@cp $< $@

AWS_SERVERS := tools/aws_servers/.venv/.installed

$(AWS_SERVERS): tools/aws_servers/install tools/aws_servers/requirements.txt tools/aws_servers/package-lock.json
	tools/aws_servers/install
	@touch $@

.PHONY: setup
setup: $(SETUP) .dagster/dagster.yaml  ## .venv with the pinned packages and .venv/bin/backfill

.PHONY: demo
demo: setup  ## a loopback network, a plan, every shard through Dagster's queue and daemon, a summary
	$(BIN)/backfill demo

.PHONY: demo-aws
demo-aws: setup $(AWS_SERVERS)  ## the same with list and state on S3 and the ledger in DynamoDB: servers on loopback
	$(BIN)/backfill demo --aws

.PHONY: ui
ui: setup  ## the same network, and the Dagster UI on it, until Ctrl-C
	$(BIN)/backfill demo --ui

# Coverage is bound per package, so the check runs after pytest; it says nothing when all is well.
.PHONY: test
test: setup $(AWS_SERVERS)  ## the whole test suite, with the coverage bounds
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --no-cov-on-fail $(PYTEST_ARGS)
	@$(BIN)/python tools/check_coverage.py

.PHONY: test-reference
test-reference: setup  ## conformance against the reference PDS (needs npm packages and a C++ compiler)
	tools/reference_pds/install
	BACKFILL_REFERENCE_PDS=1 $(BIN)/python -m pytest backfill_dagster_tests/reference $(PYTEST_ARGS)

.PHONY: screenshots
screenshots: setup  ## the pictures of docs/images/, taken anew in a real browser (needs chromium)
	BACKFILL_TESTS_MUST_NOT_SKIP=1 BACKFILL_SCREENSHOTS=docs/images $(BIN)/python -m pytest \
		backfill_dagster_tests/live/test_browser.py $(PYTEST_ARGS)

.PHONY: torture
torture: setup $(AWS_SERVERS)  ## every crash point with every accident, every zombie, 500 kills, long histories (an hour or so)
	BACKFILL_TORTURE=1 $(BIN)/python -m pytest -n 2 --dist load backfill_dagster_tests/torture \
		backfill_dagster_tests/worker/test_delta_properties.py $(PYTEST_ARGS)

.PHONY: lint
lint: setup  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: setup $(AWS_SERVERS)  ## the benchmarks, with their table
	$(BIN)/python -m benchmarks

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16
