# `make` alone prints this list. Everything here may be repeated; what is done already is not done again.
.DEFAULT_GOAL := help
.PHONY: help environment setup demo up down check test test-fast test-chaos may-bench bench clean
BIN := .venv/bin

help:  ## this list
	@echo "make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

environment:
	@scripts/environment.sh

setup: $(if $(CHECK),,environment)  ## prepare this machine: engine, volume, images (CHECK=1 only reports, COMPOSE=1 for docker compose too)
	@$(if $(CHECK),scripts/environment.sh --check &&) \
		$(BIN)/python -m orchestrator.setup $(if $(CHECK),--check) $(if $(COMPOSE),--compose)

demo: setup  ## a demo production, a snapshot and three tenants, from nothing
	@$(BIN)/orchestrator demo

up: setup  ## start what does not run of this installation
	@$(BIN)/orchestrator up

down: environment  ## stop everything of this installation; nothing is lost
	@$(BIN)/orchestrator down

check: environment  ## read the code: ruff, mypy, import-linter, deptry, hadolint, shape
	@scripts/check.sh

test: environment  ## prepare the machine, check the code, run the whole suite
	@$(BIN)/python -m orchestrator.setup --tests --var /tmp/orchestrator-tests
	@scripts/check.sh
	@scripts/test.sh

test-fast: environment  ## the tests that need neither container engine nor database server, under a minute
	@$(BIN)/python -m pytest -n auto --dist loadfile -m "not server and not engine and not trip and not browser and not chaos"

test-chaos: environment  ## kill parts at the boundaries of steps
	@$(BIN)/python -m pytest -m chaos

may-bench: environment
	@$(BIN)/python -m benchmarks --may $(ONLY)

bench: may-bench setup  ## every number we claim, one JSON object each (ONLY=refresh runs one file)
	@$(BIN)/python -m benchmarks $(ONLY)

clean:  ## delete this installation: containers, volume, caches, and images no other one uses (asks; YES=1 does not)
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m orchestrator.setup --remove $(if $(YES),--yes); fi
	@rm -rf .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
