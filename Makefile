# `make up` runs the whole service on this machine, `make test` every check. Python 3.11 is all they need.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000

.PHONY: up test lint format requirements clean

up: $(VENV)/local
	@$(BIN)/python -m config.up --port $(PORT)

test: $(VENV)/test lint
	@./tests/run

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(VENV)/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The three sets of pinned packages, from pyproject.toml; the larger one first, so that all agree.
requirements: $(VENV)/test
	$(call compile,test,--extra service --extra embedded --extra test)
	$(call compile,local,--extra service --extra embedded -c requirements/test.txt)
	$(call compile,production,--extra service -c requirements/test.txt)

compile = UV_CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate $(2) \
	pyproject.toml --output-file requirements/$(1).txt

# A stamp says that the installation is whole; an interrupted one begins anew.
$(VENV)/local: requirements/local.txt
	$(call install,local)

$(VENV)/test: requirements/test.txt
	$(call install,test)
	@cp $(VENV)/test $(VENV)/local

install = @$(PYTHON) -c 'import sys; sys.exit("System Tasks needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=/path/to/python3.11 …" if sys.version_info < (3, 11) else 0)' && \
	([ -e $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV)) && \
	echo "Installing requirements/$(1).txt …" && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(1).txt && \
	touch $(VENV)/$(1)

clean:
	rm -rf $(VENV) var
