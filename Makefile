# Everything runs from .venv; `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: .venv/installed ## start everything and import the sample files (ARGS=--exit stops after the table)
	$(BIN)/python -m rowledger.demo $(ARGS)

test: .venv/installed-dev .venv/programs ## install what tests need and run them all (ARGS="tests/unit -k name" for some)
	$(BIN)/pytest $(ARGS)

lint: .venv/installed-dev ## check style and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: .venv/installed-dev ## mend style and format
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: .venv/installed-dev ## check types
	$(BIN)/mypy

described: .venv/installed ## make docs/templates.md and the templates' JSON Schema anew from the code
	$(BIN)/rowledger template-schema > include/templates/template.schema.new
	mv include/templates/template.schema.new include/templates/template.schema.json
	$(BIN)/rowledger template-schema --page docs/templates.md

bench: .venv/installed-dev ## speed and memory beside hand-written SQL, about half an hour (ARGS=--quick for a minute)
	$(BIN)/python bench/bench.py $(ARGS)

bench-parts: .venv/installed-dev ## how the time of ten million records goes down in parts, about a quarter of an hour (ARGS="--records 1000000")
	$(BIN)/python bench/parts.py $(ARGS)

bench-desk: .venv/installed-dev ## speed of the desk's pages, lists, downloads and uploads over 10 million records, about half an hour (ARGS=--quick for a minute)
	$(BIN)/python bench/desk.py $(ARGS)

chaos: .venv/installed-dev ## every fault at every point, random kills, kills of a whole Airflow; hours (ARGS="--seconds 600" for some of the first)
	PYTHONPATH=tests $(BIN)/python -m faults.chaos $(ARGS)
	$(if $(ARGS),,PYTHONPATH=tests $(BIN)/python -m faults.airflow_kills)
	$(if $(ARGS),,PYTHONPATH=tests $(BIN)/python -m faults.backlog)

guards: .venv/installed-dev ## remove our own guards one at a time; some test must go red for each; some minutes (ARGS="--jobs 2")
	PYTHONPATH=tests $(BIN)/python -m faults.guards $(ARGS)

lock: .venv/installed-dev ## resolve requirements*.txt anew into requirements.lock
	$(BIN)/python -m pip install -q uv && $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header requirements-dev.txt -o requirements.lock

clean: ## remove the environment, the demo's data and caches
	rm -rf .venv .rowledger .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python requirements.txt requirements.lock pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt -c requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-scale.txt
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt -c requirements.lock
	touch $@

# A browser, Redis and pgbouncer come from the system; where this may not install them, the tests that need them say so.
.venv/programs: export PATH := $(PATH):/usr/sbin
.venv/programs: .venv/bin/python Makefile
	if ! { command -v chromium && command -v redis-server && command -v pgbouncer; } >/dev/null && command -v apt-get >/dev/null \
		&& [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -qy chromium redis-server pgbouncer >/dev/null; fi
	touch $@

.PHONY: help demo test lint format types described bench bench-parts bench-desk chaos guards lock clean
