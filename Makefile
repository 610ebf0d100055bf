SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test check lint types format up down bench bench-peers soak lock clean

BOOTSTRAP := @sandbox/bootstrap.sh
BIN := .venv/bin
# Each has servers of its own. Two cores are busy with one; more cores may take as many.
WORKERS ?= 0

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Bring the Python environment: uv, .venv, the locked packages, the members
	$(BOOTSTRAP) python

demo: install ## The whole product on real servers, ending with an audit (ARGS="--keep --scale 0.2")
	$(BOOTSTRAP) servers
	@$(BIN)/lethe demo $(ARGS)

test: install ## The whole test suite on the same servers (ARGS="tests/unit -k ...", WORKERS=4 on many cores)
	$(BOOTSTRAP) servers
	$(BOOTSTRAP) tools
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --durations 30 --durations-min 5 $(ARGS)

check: lint types ## ruff, mypy --strict and the import contracts

lint: install ## ruff and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: install ## mypy --strict
	$(BIN)/mypy

format: install ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

up: install ## Start the servers and leave them running (ARGS="--help" for options)
	$(BOOTSTRAP) servers
	@$(BIN)/lethe sandbox up $(ARGS)

down: install ## Stop what `make up` or `lethe demo --keep` left running
	@$(BIN)/lethe sandbox down

BENCH = $(BIN)/python -m benchmarks $(foreach one,$(ONLY),--only $(one)) \
	$(if $(ROWS),--rows $(ROWS)) $(if $(REPEATS),--repeats $(REPEATS)) $(ARGS)

bench: install ## The benchmarks (ONLY="relay latency", ROWS=..., REPEATS=..., ARGS="--full")
	$(BOOTSTRAP) servers
	@$(BENCH)

bench-peers: install ## The relay beside txoutbox, faststream-outbox and Debezium (ONLY=debezium)
	$(BOOTSTRAP) servers
	@benchmarks/peers/install.sh
	@$(if $(ONLY),$(BENCH),$(BENCH) --peers)

soak: install ## The fault suite's long version, judged at the end (N=10000000, ARGS="--help")
	$(BOOTSTRAP) servers
	@$(BIN)/python -m tests.soak $(if $(N),--rows $(N)) $(ARGS)

lock: ## Write requirements.lock anew (ARGS="--upgrade")
	$(BOOTSTRAP) lock $(ARGS)

clean: ## Remove the environment and everything the sandbox keeps in this checkout
	@[ ! -x $(BIN)/lethe ] || $(BIN)/lethe sandbox down
	rm -rf .venv .venv-peers .sandbox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
