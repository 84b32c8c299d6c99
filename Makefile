# `make` alone prints what there is.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SIZES ?= 100000 1000000 10000000
REPEATS ?= 3
WORKERS ?= 4
ROW ?= gts-ml100k
SEED ?= 1
CHANGE = $(if $(ABLATION),--ablation $(ABLATION)) $(if $(VARIANT),--variant $(VARIANT)) \
	$(if $(PEERS_PYTHON),--peers-python $(PEERS_PYTHON))
RECTOOLS_PYTHON ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test fuzz lint bench bench-train bench-score bench-quality bench-merge bench-hrnn format deps lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with every version of requirements.lock

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: $(STAMP) ## run the whole pipeline on the embedded data set in runs/default
	$(BIN)/twotempo run

test: $(STAMP) ## run the tests, in as many processes as there are cores, but not more than WORKERS (4)
	$(BIN)/python -m pytest -n auto --maxprocesses $(WORKERS) --dist loadfile

fuzz: $(STAMP) ## run FUZZ_CASES odd logs and cards, 1000 unless said, from number FUZZ_SEED on
	$(BIN)/python -m pytest -m fuzz tests/fuzz

lint: $(STAMP) ## check style, imports, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP) ## measure speed and memory and write docs/performance.md; SIZES="100000 1000000" REPEATS=1 is shorter
	$(BIN)/python -m benchmarks.sessionize --events $(SIZES) --repeats $(REPEATS)
	$(BIN)/python -m benchmarks.pipeline --sizes $(SIZES) --repeats $(REPEATS)
	$(BIN)/python -m benchmarks.report

bench-train: $(STAMP) ## measure training beside its peers, into docs/performance.md; RECTOOLS_PYTHON= one that has rectools[torch]
	$(BIN)/python -m benchmarks.train_speed --repeats $(REPEATS) --peer-python "$(RECTOOLS_PYTHON)"
	$(BIN)/python -m benchmarks.report

bench-score: $(STAMP) ## measure top-k beside its peers, into docs/performance.md; PEERS_PYTHON= one that has implicit and faiss-cpu
	$(BIN)/python -m benchmarks.score_speed --repeats $(REPEATS) --peers-python "$(PEERS_PYTHON)"
	$(BIN)/python -m benchmarks.score_profile
	$(BIN)/python -m benchmarks.report

bench-quality: $(STAMP) ## run one row of docs/results.md, ROW=gts-ml100k SEED=1, ABLATION= or VARIANT= of the row; where interrupted, the same line goes on
	$(BIN)/python -m benchmarks.quality --row $(ROW) --seed $(SEED) $(CHANGE)

bench-merge: $(STAMP) ## merge the seeds that were run, and write docs/results.md
	$(BIN)/python -m benchmarks.quality_merge
	$(BIN)/python -m benchmarks.results

bench-hrnn: $(STAMP) ## run one experiment of HRNN-meta, ROW=ablation, cold, hierarchy, rating, sampled or trend, SEED=1, into docs/results.md
	$(BIN)/python -m benchmarks.hrnn --row $(ROW) --seed $(SEED)

format: $(STAMP) ## let ruff mend and format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

deps: $(STAMP) ## write each stage's code dependencies into dvc.yaml
	$(BIN)/python -m tasks.closure

lock: $(STAMP) ## resolve the versions anew and write requirements.lock
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --no-build-isolation \
		--report $(VENV)/resolved.json '.[dev]'
	$(BIN)/python -m tasks.lock $(VENV)/resolved.json

clean: ## remove runs with all that is in them, outputs and caches, but not .venv or DVC's cache
	rm -rf runs artifacts reports .checkpoints registry published scores dvc_plots build \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
