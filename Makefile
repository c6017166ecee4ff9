# Every target sets itself up. PYTHON=... chooses another interpreter (3.11 or newer).
PYTHON ?= python3.11
BIN := .venv/bin
# Three test processes, for two cores: they wait for servers and clusters half of their time. A file stays in one of
# them, in the order of tests/conftest.py, long ones first.
THREE := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit lint bench bench-long

help:
	@echo "make demo   a small digital trial in ./demo, one night over it, the tables (3 minutes with set-up, then one)"
	@echo "make test   the whole test suite (16 minutes on two cores)"
	@echo "make unit   the quick part of it: no server, no browser (3 minutes)"
	@echo "make bench  the benchmarks, as a table and as JSON in ./bench (10 minutes; peers get their own environment)"
	@echo "make bench-long  what takes longer: 10,000 mutated files through intake (5 minutes), accuracy on 60 visits,"
	@echo "            200 nights that are killed at any moment"
	@echo "make lint   ruff, mypy and the import contracts"
	@echo "make setup  only the environment, in ./.venv"

setup: .venv/complete

# One pinned set, build tools included; a half-made environment is made again.
.venv/complete: pyproject.toml constraints.txt
	@echo "setting up .venv, which takes one to three minutes"
	@$(PYTHON) -m venv --clear .venv
	@PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -qq --disable-pip-version-check -e '.[test]'
	@touch $@

demo: setup
	@$(BIN)/cmrtrials simulate demo
	@echo "One upload of this trial is broken on purpose: its first night ends as Failed and says so."
	@$(BIN)/cmrtrials run demo || test $$? -eq 1

test: setup
	@$(BIN)/pytest $(THREE)

unit: setup
	@$(BIN)/pytest $(THREE) -m "not slow"

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup
	@$(BIN)/python -m tests.benchmarks

bench-long: setup
	@$(BIN)/python -m tests.benchmarks.fuzz
	@$(BIN)/python -m tests.benchmarks.kills
	@$(BIN)/python -m tests.benchmarks.scale --visits 20 200 2000
	@$(BIN)/python -m tests.benchmarks.scale_real
	@$(BIN)/python -m tests.benchmarks.accuracy
	@$(BIN)/python -m tests.benchmarks.carried_guide
