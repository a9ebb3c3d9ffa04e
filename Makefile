# The commands that people and CI run. `make test` is the whole gate.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

EXTRAS := kafka,serve,demo,evaluation,wandb,mlflow,tune,dev
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install tools lint types imports check test chaos format demo kafka results bench-quick constraints clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

install: $(STAMP)  ## Make .venv and install ray_rec with all extras into it

$(STAMP): pyproject.toml constraints.txt
	@python="$$(bash .ci/python)"; \
	  test -x $(BIN)/python || "$$python" -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --upgrade "pip>=24.1"
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[$(EXTRAS)]" -c constraints.txt
	@touch $@

tools:
	@bash .ci/tools require

lint: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check

imports: install
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

check: lint imports types  ## Formatting, lint, import contracts and types, without the tests

test: tools check  ## The whole gate: check, doctests and all tests (WORKERS=0: in one process)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(or $(WORKERS),2) --dist loadgroup --no-loadscope-reorder

chaos: install  ## A hundred kills at random moments, on both logs (SEED=n for other ones)
	$(BIN)/python -m tests.chaos --kills 100 --seed $(or $(SEED),1)

format: install  ## Format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

demo: install  ## The whole loop on real data: load, train, serve, stream
	@$(BIN)/ray-rec demo

kafka: install  ## Run one real Kafka broker until Ctrl-C (needs Java and Maven)
	@$(BIN)/python deploy/kafka/broker.py

results: install  ## Measure how good the recommendations are (DATA=folder of the sets that are no package)
	$(BIN)/python -m benchmarks.quality $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.continual
	$(BIN)/python -m benchmarks.choices
	$(BIN)/python -m benchmarks.ablation $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.policies $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.rectools_check

bench-quick: install  ## Each benchmark at the size of a minute or two
	$(BIN)/python -m benchmarks.ingest --quick
	$(BIN)/python -m benchmarks.state --quick
	$(BIN)/python -m benchmarks.freshness --quick
	$(BIN)/python -m benchmarks.serving --quick
	$(BIN)/python -m benchmarks.publishing --quick

constraints: install  ## Write constraints.txt anew from what is installed in .venv
	$(BIN)/python deploy/constraints.py > constraints.new
	@mv constraints.new constraints.txt

clean:  ## Remove what was built, measured by tools or cached; .venv and var stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
