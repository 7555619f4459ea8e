# Two commands: `make up` runs the main job on a bare machine, `make test` runs every check.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps
NATIVE := $(wildcard src/sekisho/gateway/*.py) src/sekisho/ledger/journal.py src/sekisho/ledger/stage.py src/sekisho/capacity/search.py tools/native.py
.PHONY: up test ray check bench soak-capacity docs lock clean debian native native-clean

# Each stamp names what was installed: a changed lock file installs again, an unchanged one costs nothing.
$(VENV)/.base: requirements/tools.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements/tools.txt
	@touch $@

$(VENV)/.runtime: $(VENV)/.base requirements/runtime.txt pyproject.toml
	$(PIP_INSTALL) -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m sekisho.console.translations
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt requirements/oracles.txt
	$(PIP_INSTALL) -r requirements/dev.txt
	$(PIP_INSTALL) --ignore-requires-python --upgrade --target $(VENV)/oracles -r requirements/oracles.txt
	@touch $@

# The hot path, compiled by mypyc where there is a C compiler (on Debian as root it is installed); without one it
# runs interpreted.
$(VENV)/.native: $(VENV)/.runtime $(NATIVE)
	@command -v gcc >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev python3-dev >/dev/null; } || true
	$(BIN)/python tools/native.py
	@touch $@

native: $(VENV)/.native

native-clean:
	$(PYTHON) tools/native.py --clean
	rm -f $(VENV)/.native

up: $(VENV)/.native
	@exec $(BIN)/sekisho up $(ARGS)

# Browser tests use Debian's Chromium; PATH is asked first so that nothing is installed twice.
debian:
	@command -v chromium >/dev/null && fc-list 2>/dev/null | grep -qi 'noto sans cjk' || { \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium fonts-noto-cjk fontconfig; }

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/native.py --check

# Compiling and checking take a core each for more than a minute. Three processes of tests on two cores: they wait for
# others (databases, browsers, processes that start) a quarter of their time.
test: debian $(VENV)/.dev
	@$(MAKE) --no-print-directory --output-sync=target -j 2 native check
	$(BIN)/pytest -n 3 --timeout 300 -m "not alone" $(ARGS)
	@$(BIN)/pytest -n 0 --timeout 300 -m alone $(ARGS) || { code=$$?; [ $$code -eq 5 ] || exit $$code; }  # 5: ARGS chose none

# Ray (240 MB) has a lock of its own; its journey starts a cluster of one node on the loopback address.
ray: $(VENV)/.dev requirements/ray.txt
	$(PIP_INSTALL) -r requirements/ray.txt
	$(BIN)/pytest --timeout 600 tests/journeys/test_ray.py

bench: $(VENV)/.native
	$(BIN)/python -m bench.gateway $(ARGS)

# Nothing is sold twice, however long one tries: ten million steps on each database unless ARGS says otherwise.
soak-capacity: $(VENV)/.dev $(VENV)/.native
	$(BIN)/python -W ignore -m tests.soak.capacity $(ARGS)

lock: $(VENV)/.base
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --extra demo --extra otel --extra postgres --extra nvidia -o requirements/runtime.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml requirements/dev.in --extra demo --extra otel --extra postgres --extra nvidia -c requirements/runtime.txt -c requirements/tools.txt -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  requirements/tools.in -o requirements/tools.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  requirements/bench.in -o requirements/bench.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --extra ray -c requirements/dev.txt -c requirements/tools.txt -o requirements/ray.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  requirements/bench-ledger.in -o requirements/bench-ledger.txt

docs: $(VENV)/.dev
	$(BIN)/python docs/reference/make.py

clean: native-clean
	rm -rf $(VENV) .sekisho .mypy_cache .ruff_cache .hypothesis build dist
