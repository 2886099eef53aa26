# Everything a newcomer needs is `make run` and `make test`; `make help` lists the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
SETUP := VENV=$(VENV) ops/dev/setup.sh
SOURCES := router engines gateway worker-core bench tests ops
PACKAGES := router/sluice_router engines/sluice_engines gateway/sluice_gateway \
            worker-core/sluice_worker worker-core/training bench/sluice_bench bench/locustfile.py ops/stack
TESTS ?=
# Processes that share the tests: one for each core, files whole; a part of the tests (TESTS=) runs in one.
JOBS ?= $(if $(TESTS),0,logical)
ENGINES ?= llamacpp vllm
REPORT ?=
VARIANT ?=
ARGS ?=
# Of `make load`; not from the environment, where TIME and USERS may mean something else.
URL = http://127.0.0.1:8000
USERS = 4
TIME = 30s

# Tests and servers are hundreds of processes: each would compile the sources again where byte code is not kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test test-engines compile torture fuzz lint format prompts bench bench-client bench-gateway bench-parity bench-worker \
        load docker dash stack-local lock clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run:  ## Install what is missing, then start gateway and worker (SLUICE_PORT=8000, ARGS="--help").
	@$(SETUP) run && exec $(VENV)/bin/sluice serve $(ARGS)

test:  ## Install what is missing, then run every test (TESTS=router/tests for a part; JOBS=0: in one process).
	@$(SETUP) test && $(VENV)/bin/pytest -n $(JOBS) --maxprocesses 8 --dist loadfile $(TESTS) $(ARGS)

test-engines:  ## Install llama.cpp and vLLM for CPUs, and drive both and the worker (ENGINES=llamacpp, REPORT=FILE).
	@$(SETUP) test && for engine in $(ENGINES); do \
		$(VENV)/bin/python ops/engines/install.py $$engine || exit $$?; done
	@SLUICE_REQUIRE_ENGINES="$(ENGINES)" SLUICE_LIVE_REPORT="$(REPORT)" \
		$(VENV)/bin/pytest tests/engines_live $(ARGS)

compile:  ## Compile the gateway's request path after a change; tests and `make run` then use it.
	@$(SETUP) test && $(VENV)/bin/sluice compile

torture:  ## 100,000 requests, a fifth of whose clients leave, twice; write docs/reports/gateway-torture.md.
	@$(SETUP) test && SLUICE_TORTURE_VISITS=100000 SLUICE_TORTURE_REPORT=docs/reports/gateway-torture.md \
		$(VENV)/bin/pytest gateway/tests/torture/test_tempest.py $(ARGS)

fuzz:  ## Try the gateway with some minutes of strange bodies, headers, framing and API calls.
	@$(SETUP) test && SLUICE_FUZZ_EXAMPLES=4000 $(VENV)/bin/pytest gateway/tests/fuzz $(ARGS)

lint:  ## Style, types, import direction, lock file, prompts of the bench.
	@$(SETUP) test
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy $(PACKAGES)
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python ops/dev/lock.py --check
	$(VENV)/bin/sluice-bench prompts --check

format:  ## Rewrite the sources in the project's style.
	@$(SETUP) test
	$(VENV)/bin/ruff check --fix $(SOURCES)
	$(VENV)/bin/ruff format $(SOURCES)

prompts:  ## Write bench/data/prompts.jsonl, which all suites of `sluice-bench run` are made of.
	@$(SETUP) test && $(VENV)/bin/sluice-bench prompts $(ARGS)

bench:  ## Measure gateway and worker, write docs/reports/baseline.md (ARGS="--quick"; VARIANT=dynamic: one way of batching).
	@$(SETUP) test && $(VENV)/bin/sluice-bench $(if $(VARIANT),experiment batching --only $(VARIANT),baseline) $(ARGS)

bench-gateway:  ## Measure the gateway against its bars and beside others (ARGS="--only plain").
	@$(SETUP) test && $(VENV)/bin/sluice-bench gateway $(ARGS)

bench-parity:  ## Measure one server with vLLM's client and with ours, write docs/reports/parity.md (ARGS="--repeats 3").
	@$(SETUP) test && $(VENV)/bin/sluice-bench parity $(ARGS)

bench-worker:  ## Measure the worker on CPUs against its bars and other engines (ARGS="--only decode").
	@$(SETUP) test && $(VENV)/bin/sluice-bench worker $(ARGS)

bench-client:  ## Measure what the load client itself costs, write docs/reports/client.md (ARGS="--quick").
	@$(SETUP) test && $(VENV)/bin/sluice-bench client-cost $(ARGS)

load:  ## User journeys with Locust, at URL= or a gateway of its own (USERS=4 TIME=30s ARGS="--shape spike").
	@$(SETUP) test && $(VENV)/bin/python -m sluice_bench.journeys --url $(URL) --users $(USERS) --time $(TIME) $(ARGS)

docker:  ## Build Sluice's images with Docker (ARGS="gateway"; PLATFORMS=linux/amd64,linux/arm64 PUSH=1 for a registry).
	@ops/docker/build.sh $(ARGS)

dash:  ## Open Grafana's overview of a running stack, or say where it is.
	@ops/grafana/open.sh

stack-local:  ## What Compose runs, without Docker: gateway, worker, Redis, Prometheus; its quick start is tested (ARGS=--once).
	@$(SETUP) test && exec $(VENV)/bin/python ops/stack/stack_local.py $(ARGS)

lock:  ## Write constraints.txt from what is installed.
	@$(SETUP) test && $(VENV)/bin/python ops/dev/lock.py

clean:  ## Remove the virtual environment and all caches.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
