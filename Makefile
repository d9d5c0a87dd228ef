# Everything a person types: `make run` starts Ostler and runs the main job, `make test` passes the tests.
# Both set up what they need, say what they install, and can be run again.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test coverage check lint format bench screenshots conformance lock bundle installers clean setup setup-dev

run: setup
	@packaging/first-run

setup:
	@packaging/setup run

setup-dev:
	@packaging/setup dev

test: setup-dev lint
	@packaging/run-tests

# The tests again, with what they reach.
coverage: setup-dev
	@COVERAGE=1 packaging/run-tests

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

# Every window and state as a picture: light and dark, 100 and 200 %, English, German, Chinese, right to left.
# Into build/screenshots; Chinese needs a font (fonts-noto-cjk on Debian).
screenshots: setup-dev
	@$(BIN)/python -m tests.desktop.screens $(ARGS)

# Does a server speak the daemon protocol? `make conformance SERVER=https://… TOKEN=mul_…` asks it; without
# SERVER a hub of its own is asked. TOKEN is a user's; WORKSPACE=… names where, if none may be created.
conformance: setup-dev
	@OSTLER_CONFORMANCE_SERVER="$(SERVER)" OSTLER_CONFORMANCE_TOKEN="$(TOKEN)" \
	OSTLER_CONFORMANCE_WORKSPACE="$(WORKSPACE)" OSTLER_CONFORMANCE_REPORT=1 \
	$(BIN)/pytest -q tests/conformance $(ARGS)

lock: setup-dev
	@packaging/lock

# What people run, built from this source: prints the directory with payload and launcher.
bundle: setup-dev
	@packaging/bundle

# The installers that this machine can make, into dist; says which ones it cannot.
installers: setup-dev
	@packaging/installers dist $(ARGS)

clean:
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
