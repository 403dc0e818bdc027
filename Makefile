# `make up` runs the whole service on this machine, `make test` every check, and `make chaos` kills
# things for longer. Python 3.11 is all they need; with 3.12 or 3.13 as well, `make test` also runs on
# the newest Django, which does not support 3.11.

# The first of these interpreters that runs: pyenv has a `python3.13` in the PATH that does not where
# another version is chosen.
first_that_runs = $(shell for python in $(1); do \
    "$$python" -c 'import ensurepip, venv' 2>/dev/null && { echo "$$python"; break; }; done)
versions_of = python$(1) $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/$(1).*/bin/python)
PYTHON ?= $(or $(call first_that_runs,$(call versions_of,3.11) python3),python3)
NEWER_PYTHON ?= $(call first_that_runs,$(foreach version,3.13 3.12 3.14,$(call versions_of,$(version))))
VENV := .venv
BIN := $(VENV)/bin
OLDEST := $(VENV)/oldest
NEWEST := $(VENV)/newest
PORT ?= 8000

.PHONY: up test test-oldest chaos lint audit format openapi docs pictures diagrams benchmark-recording benchmark-serving benchmark-scale requirements clean

up: $(VENV)/local
	@echo "Starting System Tasks …"
	@$(BIN)/python -m config.up --port $(PORT)

# A vulnerability that was published today is said at the end, but it fails no test of this code.
test: $(OLDEST)/whole $(if $(NEWER_PYTHON),$(NEWEST)/whole) lint
	@./tests/run
	@$(MAKE) --no-print-directory audit || echo "The tests have passed, and pip-audit has failed: see above."

# The tests with the oldest packages that the two apps allow; the image for Compose has its own.
test-oldest: $(OLDEST)/whole
	@PYTHONPATH=$(CURDIR)/$(OLDEST) ./tests/run tests --ignore tests/test_compose.py

# The tests that kill and pause things, with this many tasks between them.
CHAOS_TASKS ?= 100000
chaos: $(VENV)/test
	@CHAOS_TASKS=$(CHAOS_TASKS) ./tests/run tests/chaos

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive config events systemtasks manage.py

# Known vulnerabilities of the pinned packages. Without network, or with a mirror that lists none, even
# for an old release of Django, this says so, and fails nothing.
AUDIT = $(BIN)/pip-audit --progress-spinner off --disable-pip
AUDIT_OUTPUT = $(VENV)/audit.txt
audit: $(VENV)/test
	@echo 'django==4.2' > $(VENV)/audited.txt
	@$(AUDIT) --no-deps --requirement $(VENV)/audited.txt > $(AUDIT_OUTPUT) 2>&1; \
	if grep --quiet '^Found' $(AUDIT_OUTPUT); \
	then for set in production test; do \
	    $(AUDIT) --require-hashes --requirement requirements/$$set.txt || exit 1; \
	done; else echo "Nothing is audited: pip-audit finds no vulnerability in Django 4.2, so it reaches no list of them. It says:"; \
	tail -n 3 $(AUDIT_OUTPUT); fi

format: $(VENV)/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The document that the API serves, after a change of its views.
openapi: $(VENV)/test
	$(BIN)/python manage.py openapi

# The site, in docs/_build/html; a warning is an error, so every link and every place in the code is
# there. `make test` builds it as well.
docs: $(VENV)/test
	$(BIN)/python -m sphinx -E -W --keep-going -q docs docs/_build/html

# The pictures of the admin, over a made history. It needs Chromium.
pictures: $(VENV)/test
	@KEEP_PICTURES=yes ./tests/run tests/browser/test_pictures.py -q

# It needs dot, of Graphviz; what it draws is kept in Git, so that nobody else does.
diagrams:
	dot -Tsvg docs/run.dot -o docs/run.svg

benchmark-recording: $(VENV)/test
	@./benchmarks/run recording

# It needs wrk.
benchmark-serving: $(VENV)/test
	@./benchmarks/run serving

# Ten million runs need 20 GB of free space; COUNT=300000 make benchmark-scale asks the same of fewer.
COUNT ?= 10000000
benchmark-scale: $(VENV)/test
	@./benchmarks/run scale --count $(COUNT)

# The sets of pinned packages, from pyproject.toml; the largest first, so that the next two agree.
requirements: $(VENV)/test
	$(call compile,test,--extra service --extra embedded --extra benchmark --extra docs --extra test)
	$(call compile,local,--extra service --extra embedded -c requirements/test.txt)
	$(call compile,production,--extra service -c requirements/test.txt)
	$(call compile,oldest,--resolution lowest-direct --extra api --extra binary)

compile = UV_CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate $(2) \
	pyproject.toml --output-file requirements/$(1).txt

# A stamp says that the installation is whole; an interrupted one begins anew.
$(VENV)/local: requirements/local.txt
	@$(call install,local)

$(VENV)/test: requirements/test.txt
	@$(call install,test)
	@touch $(VENV)/local

# A folder beside the environment, to be looked into before it.
$(OLDEST)/whole: requirements/oldest.txt | $(VENV)/test
	@rm -rf $(OLDEST)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--target $(OLDEST) -r requirements/oldest.txt
	@touch $@

# An environment of another interpreter.
$(NEWEST)/whole: requirements/test.txt | $(VENV)/test
	@$(NEWER_PYTHON) -m venv --clear $(NEWEST)
	@echo "Installing requirements/test.txt for $$($(NEWEST)/bin/python -V) …"
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/test.txt
	@touch $@

define install
[ -w . ] || { echo "System Tasks cannot start: there is no permission to write to $(CURDIR)." >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
    echo "System Tasks cannot start: it needs Python 3.11 or newer, as in make PYTHON=/usr/bin/python3.11 …" >&2; exit 1; }; \
[ -e $(VENV)/local ] || [ -e $(VENV)/test ] || $(PYTHON) -m venv --clear $(VENV) || exit 1; \
echo "Installing requirements/$(1).txt, which takes a minute or two …"; \
$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(1).txt && \
touch $(VENV)/$(1)
endef

clean:
	rm -rf $(VENV) var
