# Everything that a developer types. `make` alone lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# In a sandbox the sources are read-only: what is not compiled by then would be compiled again at every start.
COMPILE := $(BIN)/python -m compileall -q src

.PHONY: help run test test-all check bench lock docs clean

help: ## This list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

# The two stamps: what the product needs, and what its developers need on top. Each is made anew when its lock changes.
$(VENV)/.run: requirements/run.txt pyproject.toml tools/bootstrap
	@tools/bootstrap "$(PYTHON)" "$(VENV)" run

$(VENV)/.dev: requirements/dev.txt pyproject.toml tools/bootstrap
	@tools/bootstrap "$(PYTHON)" "$(VENV)" dev

run: $(VENV)/.run ## Do the main job on the example, with embedded defaults
	@$(COMPILE)
	@$(BIN)/shadow demo

test: $(VENV)/.dev ## Run the tests (under 15 minutes on 2 cores)
	@tools/prerequisites
	@$(COMPILE)
	@$(BIN)/pytest -n auto --dist worksteal

test-all: $(VENV)/.dev ## Run the tests and the slow suites
	@tools/prerequisites
	@$(COMPILE)
	@$(BIN)/pytest -n auto --dist worksteal --slow

check: $(VENV)/.dev ## Format, lint, types, import direction, settings
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/check

bench: $(VENV)/.dev ## Measure; figures as ratios to a floor of the same run
	@$(COMPILE)
	@$(BIN)/python -m benchmarks all

docs: $(VENV)/.dev ## Generate docs/settings.md, docs/cli.md and the OpenAPI documents
	@$(BIN)/python tools/generate_docs.py

lock: $(VENV)/.dev ## Resolve the dependencies again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras --group build pyproject.toml -o requirements/run.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras --group dev pyproject.toml -o requirements/dev.txt

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .hypothesis .ruff_cache dist build
