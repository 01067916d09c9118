# Everything a fresh machine needs is Python 3.11 or 3.12 and make.
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test check up clean format docs lock haproxy

demo: $(STAMP)             ## run the whole loop on real data; the report is demo/report.html
	$(BIN)/everloop demo

test: $(STAMP)             ## unit, flow and end-to-end tests
	$(BIN)/python -m pytest

check: $(STAMP)            ## format, lint, types, import layers, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/everloop spec | diff docs/spec.md - || { echo "docs/spec.md is not current: run make docs"; exit 1; }

up: $(STAMP)               ## start the servers and keep them alive
	$(BIN)/everloop up

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)             ## write what is generated
	$(BIN)/everloop spec > docs/spec.md

lock: $(STAMP)             ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		--python-version 3.11 --extra dev --extra postgres pyproject.toml --output-file requirements.lock

clean:                     ## remove what was made here, but never .everloop
	rm -rf .venv build demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# HAProxy lets a release with other code or dependencies take over without a gap; without it `everloop restart` does, with one.
haproxy:
	@command -v haproxy >/dev/null || test -x /usr/sbin/haproxy \
		|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq --no-install-recommends haproxy >/dev/null; } \
		|| echo "HAProxy is not installed and cannot be installed by this user: apt-get install haproxy"

$(STAMP): requirements.lock pyproject.toml | haproxy
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is required and none was found; name one: make PYTHON=/path/to/python3.12 …"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
