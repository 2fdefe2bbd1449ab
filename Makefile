# Every target makes its own virtual environment and installs what is missing.
# `make help` lists them; scripts/bootstrap says how the environments are made.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Where it is set, every started process compiles all that it imports: torch alone takes 15 s then.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
STAGE := scripts/stage

.PHONY: help demo up test test-openwebui test-n8n types imports lint format bench schemas lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Answer a real question about this repository's documents, with nothing but Python
	@scripts/bootstrap local
	@$(BIN)/millrace demo

up: ## Run Millrace on this machine until Ctrl-C
	@scripts/bootstrap local
	@$(BIN)/millrace up

# A failed check does not keep the tests from running: one run tells everything. The programs that
# tests need are fetched meanwhile.
test: ## Lint, types, import rules and every test, with a real Postgres and RabbitMQ
	@$(STAGE) "environment" scripts/bootstrap dev
	@fetched=$$(mktemp); trap 'rm -f "$$fetched"' EXIT; \
	for program in rabbitmq kustomize prometheus chromium; do \
		$(STAGE) $$program scripts/ensure-$$program || exit; \
	done > "$$fetched" 2>&1 & fetching=$$!; \
	failed=; \
	for check in lint types imports; do $(MAKE) $$check || failed="$$failed $$check"; done; \
	status=0; wait $$fetching || status=$$?; cat "$$fetched"; [ $$status = 0 ] || exit $$status; \
	printf '\n== tests\n'; \
	$(BIN)/python -m pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST) || failed="$$failed tests"; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

test-openwebui: ## Attach the real Open WebUI and see ratings arrive; installs 3 GB beside .venv
	@$(STAGE) "environment" scripts/bootstrap dev
	@$(STAGE) "open webui" scripts/openwebui
	@MILLRACE_TEST_OPENWEBUI=$(CURDIR)/.venv-openwebui/bin/open-webui \
		$(BIN)/python -m pytest -q tests/openwebui $(PYTEST)

test-n8n: ## Run the workflows on the real n8n; installs 3 GB beside .venv
	@$(STAGE) "environment" scripts/bootstrap dev
	@$(STAGE) "rabbitmq" scripts/ensure-rabbitmq
	@$(STAGE) "n8n" scripts/n8n-install
	@MILLRACE_TEST_N8N=$(CURDIR)/.n8n-app/bin/n8n $(BIN)/python -m pytest -q tests/n8n $(PYTEST)

types: ## Check types
	@scripts/bootstrap dev
	@$(STAGE) "types" $(BIN)/mypy

imports: ## Check that packages import only what they may
	@scripts/bootstrap dev
	@$(STAGE) "imports" $(BIN)/lint-imports --no-cache

lint: ## Check style and formatting
	@scripts/bootstrap dev
	@$(STAGE) "lint" $(BIN)/ruff check .
	@$(STAGE) "format" $(BIN)/ruff format --check .

format: ## Put the code into shape
	@scripts/bootstrap dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: ## Measure against other systems in one run and print the ratios
	@scripts/bootstrap dev
	@scripts/bootstrap bench
	@scripts/ensure-rabbitmq
	@$(BIN)/python -m bench

schemas: ## Write docs/schemas and the drawings in the docs again
	@scripts/bootstrap dev
	@$(BIN)/python scripts/regenerate.py

lock: ## Write the lock files again from pyproject.toml
	@scripts/bootstrap dev
	@scripts/lock

clean: ## Remove environments and caches; the database of `make up` stays
	rm -rf .venv .venv-openwebui .n8n-app .kustomize .kustomize.* .prometheus .prometheus.* .chromium .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
