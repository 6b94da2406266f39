# Everything from a bare clone, in one virtual environment: Python 3.10 or newer and pip are all it takes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN = .venv/bin
READY = .venv/ready
AXE = 4.14.1

.PHONY: help demo test docs browser bench clean
help: ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(READY) ## Train on MovieLens 100K, print the test RMSE and recommendations, write plots
	$(BIN)/fastcf-demo

test: $(READY) ## Run every notebook and every test; those in a browser need `make browser` once
	$(BIN)/pytest

docs: $(READY) ## Make README.md and the documentation site, in _docs/html, from the notebooks
	$(BIN)/python docs/readme.py
	$(BIN)/python docs/build.py

browser: $(READY) ## Install what the site's tests need: Chromium (from Debian) and axe-core (from npm)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || (apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core)
	@command -v npm >/dev/null || (apt-get update -qq && apt-get install -qq -y --no-install-recommends npm)
	@npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix .venv/axe axe-core@$(AXE)

bench: $(READY) ## Measure beside peers, in the same run
	$(BIN)/python -m benchmarks

clean: ## Remove the virtual environment and what tests and demo left
	rm -rf .venv .pytest_cache .hypothesis _docs demo *.egg-info

# PyTorch first and pinned: on its own, pip may choose a build that is gigabytes larger.
$(READY): constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'fastcf needs Python 3.10 or newer, this is ' + sys.version)"
	@echo "Installing into .venv: a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
