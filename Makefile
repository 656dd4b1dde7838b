# `make help` lists what there is. Nothing but Python 3.11+ is presumed; Go programs that tests use are
# built where Go is there, and those tests are skipped loudly where it is not.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(CURDIR)/.tools
export PATH := $(TOOLS)/bin:$(PATH)
PYTEST := $(BIN)/python -m pytest --numprocesses 4 --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-all check bench edge-environment soak lock format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.installed  ## Show the whole loop on this machine, all real, in about a minute
	$(BIN)/harbor-satellite demo $(DEMO_OPTIONS)

serve: $(VENV)/.installed  ## Run Ground Control with a Prefect server and central worker (see docs/guides/operate.md)
	$(BIN)/harbor-satellite ground-control serve

test: $(VENV)/.installed $(TOOLS)/.installed  ## Run the tests: unit, flows, API on both databases, conformance, acceptance
	$(PYTEST) -m "not slow" $(PYTEST_OPTIONS)

test-all: test $(TOOLS)/.installed-slow  ## Run those and the rest: cosign, other registries, long crash tests
	$(PYTEST) -m slow $(PYTEST_OPTIONS)

check: $(VENV)/.installed  ## Check format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.installed $(TOOLS)/.installed $(TOOLS)/.installed-bench edge-environment  ## Measure copying beside every copier found on PATH, as ratios (about 10 minutes)
	$(BIN)/python -m tests.benchmarks

soak: $(VENV)/.installed $(TOOLS)/.installed  ## Trouble a site with cuts and kills for half an hour (root; MINUTES=…)
	$(BIN)/python -m tests.soak $(MINUTES)

format: $(VENV)/.installed  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Four locks, one resolution: what images and the pipeline install has the versions that tests run with. The
# satellite's has prefect-client, the same Prefect without its server, in prefect's place.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --no-header --no-annotate

lock: $(VENV)/.installed  ## Resolve the dependencies anew into constraints*.txt (needs uv)
	$(LOCK) --all-extras --group dev --group ci --upgrade pyproject.toml -o constraints.txt
	$(LOCK) -c constraints.txt --upgrade --extra ground-control pyproject.toml -o constraints-ground-control.txt
	$(LOCK) -c constraints.txt --upgrade --group ci -o constraints-ci.txt
	$(BIN)/python -c 'import tomllib; \
	  needed = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
	  print("\n".join(each.replace("prefect>", "prefect-client>") for each in needed))' \
	  | $(LOCK) -c constraints.txt --upgrade - -o constraints-edge.txt

# A site as its image has it: prefect-client, and this checkout installed as it is now.
edge-environment: $(VENV)/.installed $(TOOLS)/edge/.installed
	rm -rf $(TOOLS)/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(TOOLS)/wheel .
	$(TOOLS)/edge/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(TOOLS)/wheel/*.whl

clean:  ## Remove what make installed
	rm -rf $(VENV) $(TOOLS)

# The lock is complete, so nothing is resolved: what it names is installed, checked by hash.
$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS)/edge/.installed: constraints-edge.txt
	$(PYTHON) -m venv --clear $(TOOLS)/edge
	$(TOOLS)/edge/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints-edge.txt
	@touch $@

$(TOOLS)/.installed: tests/install-tools.sh
	sh tests/install-tools.sh $(TOOLS) fast
	@touch $@

$(TOOLS)/.installed-bench: tests/install-tools.sh
	sh tests/install-tools.sh $(TOOLS) bench
	@touch $@

$(TOOLS)/.installed-slow: tests/install-tools.sh
	sh tests/install-tools.sh $(TOOLS) slow
	@touch $@
