# Every target makes its own set-up first: `make demo` and `make test` work in a fresh clone.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export DAGSTER_HOME := $(CURDIR)/.dagster
SETUP := .venv/.installed

$(SETUP): constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.dagster/dagster.yaml: deploy/local/dagster.yaml
	@mkdir -p .dagster
	@cp $< $@

.PHONY: setup
setup: $(SETUP) .dagster/dagster.yaml  ## .venv with the pinned packages and .venv/bin/backfill
