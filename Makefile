# Everything from a bare clone, in one virtual environment: Python 3.10 or newer and pip are all it takes.
# .venv grows by stages, each with what its commands need and no more: demo, test, dev (browser and JupyterLab, types, coverage).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= 2
BIN = .venv/bin
AXE = 4.14.1
INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
FACTS = constraints.txt setup.cfg pyproject.toml

.PHONY: help demo test test-slow test-all coverage audit docs browser bench clean
help: ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: .venv/demo ## Train on MovieLens 100K, print the test RMSE and recommendations, write plots
	$(BIN)/fastcf-demo

test: .venv/test ## Run the notebooks of the library and the fast tests, JOBS=2 at a time
	@$(BIN)/pytest -n $(JOBS) --dist loadfile -m 'not slow'; status=$$?; \
	echo "Left out: what is slow (tutorials and the longest notebooks, pages in a browser and in JupyterLab, calibration, killed processes). make test-all runs that too."; exit $$status

test-slow: .venv/dev ## Run the slow tests; those in a browser need `make browser` once
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m slow

test-all: test test-slow ## Run everything

coverage: .venv/dev ## Run the fast tests and the library's notebooks, and show which lines and branches nothing went through
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist loadfile -m 'not slow'
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

audit: .venv/test ## Ask PyPI for known faults of the pinned packages; needs the internet
	@test -x .venv/audit/bin/pip-audit || ($(BIN)/python -m venv .venv/audit && .venv/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit)
	.venv/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip

docs: .venv/test ## Make README.md and the documentation site, in _docs/html, from the notebooks
	$(BIN)/python docs/readme.py
	$(BIN)/python docs/build.py

browser: .venv/dev ## Install what tests in a browser need: Chromium (from Debian) and axe-core (from npm)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || (apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core)
	@command -v npm >/dev/null || (apt-get update -qq && apt-get install -qq -y --no-install-recommends npm)
	@npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix .venv/axe axe-core@$(AXE)

bench: .venv/dev ## Measure beside peers, in the same run
	$(INSTALL) -e '.[bench]'
	$(BIN)/python -m benchmarks

clean: ## Remove the virtual environment and what tests and demo left
	rm -rf .venv .pytest_cache .hypothesis _docs demo *.egg-info

# PyTorch first and pinned: on its own, pip may choose a build that is gigabytes larger.
.venv/demo: $(FACTS)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'fastcf needs Python 3.10 or newer, this is ' + sys.version)"
	@echo "Installing into .venv what the demo needs: about a minute"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) --no-compile torch
	@$(INSTALL) --no-compile -e .
	@touch $@

.venv/test: .venv/demo
	@echo "Installing into .venv what notebooks, tests and documentation need: about a minute"
	@$(INSTALL) -e '.[test]'
	@touch $@

.venv/dev: .venv/test
	@echo "Installing into .venv what development needs: about a minute"
	@$(INSTALL) -e '.[dev]'
	@touch $@
