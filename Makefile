# The two commands: `make run` and `make test`. Everything they need goes into .venv here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test lint bench clean

help:  ## Show this help.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Funicular needs Python 3.11 or newer: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

run: $(STAMP)  ## Install, and show the main job: a simulated fleet, live in the terminal.
	@$(BIN)/funicular demo $(ARGS)

test: $(VENV)/.dev  ## Run every test.
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)
	@echo "left out: Kafka (no Kafka engine yet); MQTT, PostgreSQL, Redis, RabbitMQ (no such transports yet)"

lint: $(VENV)/.dev  ## Run what CI runs before the tests: format, lint, types, imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## Measure; figures are ratios and medians, see tests/bench.
	@for bench in tests/bench/*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) data .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
