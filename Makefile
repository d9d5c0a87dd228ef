# Everything a person types: `make run` starts Ostler and runs the main job, `make test` passes the tests.
# Both set up what they need, say what they install, and can be run again.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check lint format bench lock clean setup setup-dev

run: setup
	@packaging/first-run

setup:
	@packaging/setup run

setup-dev:
	@packaging/setup dev

test: setup-dev lint
	@packaging/run-tests

lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup-dev
	@$(BIN)/python -m benchmarks $(ARGS)

lock: setup-dev
	@packaging/lock

clean:
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
