# Everything runs from .venv, which the first target that needs it makes. `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where this is set, each of the hundreds of processes that tests start compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest -q
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: setup up fmt lint types imports unit contract integration e2e test check smells migrate \
	torture soak bench lock docs help

setup: $(STAMP) ## Make .venv and install the locked packages; does nothing when they are there

$(STAMP): requirements.lock pyproject.toml .ci/setup
	@PYTHON="$(PYTHON)" .ci/setup $(VENV)
	@touch $@

up: $(STAMP) ## Start a whole gateway here: servers, processes, simulator (ARGS="--port 8001 …")
	@$(BIN)/gateway up $(ARGS)

fmt: $(STAMP) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

lint: $(STAMP) ## Check style and plain mistakes, formatting included
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

types: $(STAMP) ## Check the types
	@$(BIN)/mypy

imports: $(STAMP) ## Check who may import whom
	@$(BIN)/lint-imports

unit: $(STAMP) ## Test what needs nothing outside the process
	@$(PYTEST) tests/unit

contract: $(STAMP) ## Test each contract over all its implementations
	@$(PYTEST) tests/contract

integration: $(STAMP) ## Test against real servers
	@$(PYTEST) tests/integration

e2e: $(STAMP) ## Test whole gateways, started for real
	@$(PYTEST) tests/e2e

# One process for whole gateways, one for all else: see tests/shares.py.
test: $(STAMP) ## Run the whole suite against real servers
	@$(PYTEST) --numprocesses 2 --no-loadscope-reorder

check: lint types imports unit ## All that takes less than a minute; run it before a commit

smells: $(STAMP) ## List long functions, long files and tangled code, for reviewers
	@$(BIN)/python .ci/smells.py
	@$(BIN)/ruff check --select C901,PLR0913,PLR0915 --exit-zero .

migrate: $(STAMP) ## Bring the stores that VALKEY_URL, DATABASE_URL and CLICKHOUSE_URL name up to date
	@$(BIN)/gateway release $(ARGS)

torture: $(STAMP) ## Run the kill tests at full size
	@$(PYTEST) -s -m torture

soak: $(STAMP) ## Run the long tests
	@$(PYTEST) -s -m soak

bench: $(STAMP) ## Measure the gateway on this machine
	@$(BIN)/python -m bench $(ARGS)

# Three packages are named by chdb-core only and never imported; they would be 0.4 GB.
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --quiet

lock: $(STAMP) ## Compile requirements.lock and requirements.base.lock from pyproject.toml
	@$(COMPILE) pyproject.toml --all-extras --no-emit-package pandas --no-emit-package numpy \
		--no-emit-package pyarrow -o requirements.lock
	@$(COMPILE) pyproject.toml -c requirements.lock -o requirements.base.lock
	@$(COMPILE) tests/e2e/langchain/requirements.in -o tests/e2e/langchain/requirements.lock
	@for version in 0.3 0.4; do $(COMPILE) tests/e2e/otari/requirements-$$version.in \
		-o tests/e2e/otari/requirements-$$version.lock; done

docs: $(STAMP) ## Write the pages that are made from the code
	@$(BIN)/python .ci/cli_page.py
	@$(BIN)/python .ci/metrics_page.py

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
