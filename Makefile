# The two commands: `make run` and `make test`. Everything they need goes into .venv here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test lint bench bench-peers soak chaos clean

help:  ## Show this help.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Funicular needs Python 3.11 or newer: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group compiled || echo "LEFT OUT: AMQP 1.0 and DTLS. Their libraries need a C compiler, Python's headers, autoconf and libtool."
	@touch $@

run: $(STAMP)  ## Install, and show the main job: a simulated fleet, live in the terminal.
	@$(BIN)/funicular demo $(ARGS)

test: $(VENV)/.dev  ## Run every test; says what this machine cannot run.
	@command -v mvn >/dev/null || command -v dockerd >/dev/null || [ -n "$$FUNICULAR_TEST_KAFKA" ] || echo "LEFT OUT: Kafka. It needs Java and Maven, or Docker, or FUNICULAR_TEST_KAFKA=host:port."
	@command -v dockerd >/dev/null || docker info >/dev/null 2>&1 || echo "LEFT OUT: containers. They need Docker (deploy/prepare-ci installs it on Debian)."
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(VENV)/.dev  ## Run what CI runs before the tests: format, lint, types, imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-peers  ## Measure: beside peers, then the parts; figures are ratios and medians.
	@for bench in script_engines codecs expression route log door main_job growth start; do echo "== $$bench"; $(BIN)/python -m tests.bench.$$bench || exit 1; done

bench-peers: $(VENV)/.dev  ## Beside Faust, Quix Streams, Kafka Streams and Bento; ARGS="--runs 3 --peers quix".
	$(BIN)/python -m tests.bench.compare $(ARGS)

soak: $(VENV)/.dev  ## Ten million uplinks: does memory stay flat?
	$(BIN)/python -m tests.soak.main_job $(ARGS)

chaos: $(VENV)/.dev  ## Kill, stop and break the program on Kafka for hours; ARGS=--short: minutes.
	$(BIN)/python -m tests.chaos $(ARGS)

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) data .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
