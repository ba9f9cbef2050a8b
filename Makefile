# Everything happens in .venv; `make` alone lists what there is.
PYTHON ?= python3
BIN := .venv/bin
# Each worker and each role of the tests would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Extras stay in the pins: without them pip looks past the pin for whoever asks for one, and finds
# a release without a hash as soon as there is a newer one.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/uv pip compile --quiet \
	--universal --python-version 3.11 --generate-hashes --no-annotate --no-strip-extras --upgrade

# Test files run side by side, each worker with services of its own. Two workers more than cores:
# most of a test's time is waiting, but services that are too busy do not answer in time. Files keep
# their order: the long ones, which need services, come first, and no worker is left with one at last.
WORKERS ?= $(shell echo $$((2 + $$(getconf _NPROCESSORS_ONLN))))
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q
# `make test` tries a hundred examples of each property, these a tenth of that.
WITHOUT_SERVICES = --hypothesis-profile "fewer examples" \
	-m "not services and not long and not image" tests/contract tests/deploy tests/unit

.PHONY: help run example test coverage chaos autobahn lint check check-other pictures bench requirements clean image-test chart contracts

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' Makefile

run: .venv/run ## start notifier with its web page; needs no Redis and no RabbitMQ
	$(BIN)/notifier dev

# SERVERS=new: on RabbitMQ and Redis of Debian 13; SERVERS=newest: of Debian unstable. As root, in
# folders of their own. TEST_REDIS=valkey in the environment takes Valkey in place of Redis.
ON_SERVERS = $(if $(SERVERS),TEST_SERVERS=$(SERVERS))

# NAME=notifications|chat|dashboard|collaboration  PORT=8080
example: .venv/run clients/js/dist/.made ## run an example on http://127.0.0.1:8080; see docs/examples.md
	$(BIN)/python -m examples.$(or $(NAME),notifications) $(PORT)

test: .venv/dev ## run all tests; finds or installs Redis, RabbitMQ, Chromium and Node
	sh tests/support/install-services.sh $(SERVERS)
	$(MAKE) --no-print-directory clients/js/dist/.made
	$(ON_SERVERS) $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(COVERED)

# Before Python 3.12, counting lines and branches doubles the CPU time of all tests, and of each role that
# they start. `check-other` counts the lines of its tests for a tenth, where its Python can.
coverage: COVERED = --cov --cov-branch
coverage: test ## run all tests, and print the coverage of lines and branches

chaos: .venv/dev ## break everything ROUNDS times, or one FAILURE, while events flow; about two hours
	sh tests/support/install-services.sh $(SERVERS)
	$(MAKE) --no-print-directory clients/js/dist/.made
	$(ON_SERVERS) $(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),20) $(if $(SEED),--seed $(SEED)) \
		$(addprefix --failure ,$(FAILURE)) $(if $(WRITE),--write docs/reliability.md)

autobahn: .venv/dev ## run all Autobahn cases; those of compression take minutes
	$(BIN)/python -m pytest -m "long or not long" tests/scenarios/test_autobahn.py

lint: .venv/dev ## format, lint, types and imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## lint, and the tests that need no services
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(WITHOUT_SERVICES)

check-other: .venv/dev ## the tests that need no services, with coverage, on the newest other Python found here
	sh tests/support/other-python.sh $(SIDE_BY_SIDE) --cov $(WITHOUT_SERVICES)

image-test: .venv/dev .venv/scan-made ## build the image and run it as the chart says (Debian, as root)
	sh tests/support/install-services.sh image
	$(BIN)/python -m pytest -m image tests/deploy

chart: .venv/dev ## write what the chart takes from settings and values.yaml
	$(BIN)/python -m deploy.helm.generate

# RELEASE=1: later changes are compared with the promises of this moment.
contracts: .venv/dev ## write docs/contracts/ from the code, and tell changes that break clients
	$(BIN)/python -m contracts.generate $(if $(RELEASE),--release)

pictures: .venv/dev ## draw the pictures in docs/: dashboards from a run of two minutes, and examples
	sh tests/support/install-services.sh
	$(BIN)/python -m tests.support.picture
	PICTURES=docs $(BIN)/python -m pytest -q tests/scenarios/test_examples.py

# ROWS=broadcast,memory  RUNS=5  SIZE=full|small  PROFILE=1 (of ours, where the time goes)
bench: .venv/bench ## compare notifier with its peers, side by side: see benchmarks/README.md
	sh benchmarks/contenders/install.sh
	PYTHONPATH=. $(BIN)/python -m benchmarks \
		$(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS)) $(if $(SIZE),--size $(SIZE)) \
		$(if $(PROFILE),--profile)
	$(if $(PROFILE),,PYTHONPATH=. $(BIN)/python -m benchmarks.report)

requirements: .venv/made ## pin the newest versions of all dependencies, with their hashes
	$(INSTALL) uv
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) pyproject.toml --extra dev --extra otel --constraint requirements/run.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra otel --constraint requirements/run.txt -o requirements/image.txt
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) --group scan -o requirements/scan.txt
	$(COMPILE) --group bench --constraint requirements/dev.txt -o requirements/bench.txt

clean: ## remove the virtual environment and everything made by tools
	rm -rf .venv build dist *.egg-info .coverage .coverage.* .hypothesis
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf benchmarks/contenders/servers/socketio/node_modules clients/js/node_modules clients/js/dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps below make set-up incremental: each is newer than what it was made from.
.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "notifier needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qqy python3-venv; } || \
		{ echo "Python's venv module is missing: sudo apt-get install python3-venv"; exit 1; }
	@echo "Setting up .venv, once. 1 of 3: Python's virtual environment"
	$(PYTHON) -m venv --clear .venv
	@touch $@

# Here pip is not quiet: it names each package while a newcomer waits.
.venv/run: .venv/made pyproject.toml requirements/run.txt requirements/build.txt
	@echo "Setting up .venv, 2 of 3: the packages that notifier needs, in about a minute"
	$(subst --quiet,--progress-bar off,$(INSTALL)) --require-hashes -r requirements/build.txt -r requirements/run.txt
	@echo "Setting up .venv, 3 of 3: notifier itself"
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# checkov wants other versions than notifier: an environment of its own.
.venv/scan-made: .venv/made requirements/scan.txt
	$(PYTHON) -m venv --clear .venv/scan
	.venv/scan/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements/scan.txt
	@touch $@

.venv/dev: .venv/run requirements/dev.txt
	$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# The package for browsers: npm brings only the tools to build and test it.
JS := clients/js
$(JS)/node_modules/.made: $(JS)/package-lock.json
	@node -e 'process.exit(+(parseInt(process.versions.node) < 18))' 2>/dev/null && npm --version >/dev/null || \
		{ echo "The client for browsers is built and tested by Node 18 or newer, with npm: nodejs.org, or sudo apt-get install nodejs npm"; exit 1; }
	cd $(JS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(JS)/dist/.made: $(JS)/node_modules/.made $(JS)/package.json $(JS)/tsconfig.json $(JS)/build.mjs $(wildcard $(JS)/src/*)
	cd $(JS) && npm run --silent build
	@touch $@

.venv/bench: .venv/dev requirements/bench.txt
	$(INSTALL) --require-hashes -r requirements/bench.txt
	@touch $@
