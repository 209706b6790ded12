# Two commands do all the set-up: `make up` runs everything on this machine, `make test` tests it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What `make up` starts beside our own processes, and what the tests use besides.
RUN_PACKAGES := prometheus prometheus-alertmanager
TEST_PACKAGES := $(RUN_PACKAGES) softflowd nfdump pmacct tshark openvswitch-switch systemd snmpd unbound bind9

# The engine of the oldest ClickHouse that is supported (OLDEST_VERSION of exporter/store/client.py):
# chDB of that version, in a folder beside the virtual environment, which has a newer one. Another
# version has another stamp, so that it is installed.
OLDEST_ENGINE := .engines/clickhouse-25.8
OLDEST_CHDB := 3.7
OLDEST_INSTALLED := $(OLDEST_ENGINE)/.chdb-$(OLDEST_CHDB)

# DEMO=0: no demo traffic. DEMO=1: demo traffic even with a CONFIG. CONFIG=file: your own settings.
DEMO ?=
CONFIG ?=
UP_FLAGS := $(if $(filter 0,$(DEMO)),--no-demo) $(if $(filter 1,$(DEMO)),--demo) \
	$(if $(CONFIG),--config "$(CONFIG)")

.PHONY: help up test lint format dashboards proto bench fuzz clean

help: ## Say what can be made.
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: $(VENV)/.run ## Run everything on this machine; Ctrl-C ends all of it. DEMO=0, CONFIG=file.
	@exporter/up/packages.sh $(RUN_PACKAGES)
	@exec $(BIN)/flow-exporter up $(UP_FLAGS)

test: lint $(OLDEST_INSTALLED) ## Lint, check types, run all tests.
	@exporter/up/packages.sh $(TEST_PACKAGES)
	@# Most tests wait for other programs: three files at a time keep two cores busy. Not those of
	@# the most tests first: few long tests come before many short ones, which fill the end.
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dashboards: $(VENV)/.dev ## Write grafana/dashboards/*.json from grafana/source/.
	$(BIN)/flow-exporter dashboards

proto: $(VENV)/.dev ## Generate the code of exporter/proto/*.proto.
	$(BIN)/python -m tests.support.protobuf

bench: $(VENV)/.dev ## Measure: against nfcapd and nfacctd, the store, its answers, the rules, what baselines find.
	@exporter/up/packages.sh nfdump pmacct
	$(BIN)/python -m tests.bench $(BENCH_FLAGS)
	$(BIN)/python -m tests.bench.store
	$(BIN)/python -m tests.bench.sustained
	$(BIN)/python -m tests.bench.latency
	$(BIN)/python -m tests.bench.rules
	$(BIN)/python -m tests.bench.score

fuzz: $(VENV)/.dev ## Fuzz the decoders for a minute; FUZZ_FLAGS are libFuzzer's.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz.fuzz_decode -max_len=20000 $(or $(FUZZ_FLAGS),-max_total_time=60)

.env: ## Random passwords for `docker compose up`, readable by you alone.
	@umask 077; for name in FLOW_WRITER_PASSWORD FLOW_READER_PASSWORD GRAFANA_ADMIN_PASSWORD; do \
		echo "$$name=$$($(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(24))')"; done > $@

clean: ## Remove the virtual environment and all data of `make up`.
	rm -rf $(VENV) .engines .data

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -1)."; \
		echo "Name another, such as: make $(or $(MAKECMDGOALS),up) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || exporter/up/packages.sh python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml
	@echo "Installing flow-exporter into $(VENV) (about half a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docker,embedded,snmp]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@echo "Installing flow-exporter and what its tests need into $(VENV) (about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docker,embedded,snmp,dev]'
	@touch $@ $(VENV)/.run

$(OLDEST_INSTALLED): | $(VENV)/bin/python
	@echo "Installing the oldest supported ClickHouse for tests into $(OLDEST_ENGINE) (150 MB)"
	@rm -rf $(@D)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D) 'chdb==$(OLDEST_CHDB).*'
	@touch $@
