# Everything a newcomer needs; each target works on a fresh clone.
#
#   make demo                      catalog -> captions -> towers -> vectors -> index -> answers, with figures
#   make demo MUSIC=~/Music        the same over your own folder (MODEL=<folder or name> to choose the towers)
#   make serve                     the search page over the demo's workspace
#   make check                     formatter, linter, types, quick tests; no Ray
#   make test                      formatter, linter, types, documentation, all tests except the drills
#   make drill                     kills and long runs on a real, small cluster
#   make docs                      the documentation site, in build/site
#   make setup | make clean        only the environment | remove everything generated
#
# On Linux, PyPI's torch includes CUDA (several GB); for the CPU build run
#   make setup TORCH_INDEX=<the CPU index that pytorch.org's "Get started" page gives>

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := torch==2.13.0
INDEX  := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

export RAY_USAGE_STATS_ENABLED = 0
# Compiled on first import. If that is turned off, every worker compiles torch and Ray again.
unexport PYTHONDONTWRITEBYTECODE
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: setup demo serve check lint types quick test docs drill format clean

setup: $(VENV)/ready

$(VENV)/ready: requirements/cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "raymtr needs Python 3.11 to 3.13; say make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile $(INDEX) $(TORCH) 
	$(BIN)/python -m pip install -q --no-compile 'setuptools>=77'
	$(BIN)/python -m pip install -q --no-compile --no-deps -r requirements/cpu.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

# vLLM's CPU build exists for one platform; elsewhere its test is skipped with the reason.
VLLM := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),requirements/vllm.txt)

$(VENV)/ready-dev: $(VENV)/ready requirements/dev.txt $(VLLM)
	$(BIN)/python -m pip install -q --no-deps -r requirements/dev.txt $(if $(VLLM),--no-compile -r $(VLLM))
	@touch $@

demo: $(VENV)/ready
	$(BIN)/raymtr demo $(if $(MUSIC),--music '$(MUSIC)') $(if $(MODEL),--model '$(MODEL)') $(if $(CAPTIONER),--captioner '$(CAPTIONER)')

serve: $(VENV)/ready
	@test -e demo-workspace/db/live.json || $(MAKE) demo
	$(BIN)/raymtr serve --workspace demo-workspace

check: lint types quick

lint: $(VENV)/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/ready-dev
	$(BIN)/mypy

quick: $(VENV)/ready-dev
	$(BIN)/pytest -n 2 --dist loadfile -m 'not ray and not slow and not drill'

test: $(VENV)/ready-dev lint types docs
	$(BIN)/pytest -n 2 --dist loadfile -m 'not ray and not drill'
	$(BIN)/pytest -m 'ray and not drill'

docs: $(VENV)/ready-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

drill: $(VENV)/ready-dev
	$(BIN)/pytest -m drill

format: $(VENV)/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo-workspace music-workspace build dist *.egg-info .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
