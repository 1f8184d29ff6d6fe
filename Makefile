# make setup / demo / test: `make help` lists all. Everything runs in .venv,
# which tools/setup_env.py makes and keeps up to date; with STACK=onedl in
# .venv-onedl, on the maintained forks of OpenMMLab.

VENV := .venv$(patsubst %,-%,$(filter-out stock,$(STACK)))
BIN := $(VENV)/bin
# Any Python 3.8 or later can run the set-up; it looks for a 3.11 by itself.
HOST_PYTHON := $(shell command -v python3 || command -v python3.11 || \
	command -v '$(PYTHON)')
# importlib mode keeps this folder off the import path: the tests see the
# installed package, not its source.
WORKERS := auto
PYTEST := $(BIN)/pytest --import-mode=importlib \
	-n $(WORKERS) --maxprocesses 4 --dist worksteal

# Given to the demos only when set: make demo DATA=path ITERS=100
option = $(if $($(2)),$(1) '$($(2))')
DEMO_OPTIONS = $(call option,--data,DATA) $(call option,--form,FORM) \
	$(call option,--work-dir,WORK_DIR) $(call option,--iters,ITERS) \
	$(call option,--sparse,SPARSE) \
	$(if $(RESUME),--resume) $(DEMO_ARGS)

.PHONY: setup demo demo-seg test test-all test-pythons lint clean help
.DEFAULT_GOAL := setup

setup:
ifeq ($(HOST_PYTHON),)
	@echo 'setup: needs Python 3.11, but there is no python3 on PATH;' \
	  'install it: apt-get install python3.11 python3.11-venv' \
	  'python3.11-dev' >&2; exit 2
else
	@STACK='$(STACK)' $(HOST_PYTHON) tools/setup_env.py
endif

demo: setup
	@$(BIN)/shiftwise demo $(call option,--backbone,BACKBONE) \
	  $(DEMO_OPTIONS)

demo-seg: setup
	@$(BIN)/shiftwise demo-seg $(DEMO_OPTIONS)

# Idle threads of one worker must not spin where another computes.
test test-all: export OMP_WAIT_POLICY := PASSIVE

test: lint
	@$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

test-all: lint
	@$(PYTEST) $(PYTEST_ARGS)

# The wheel on every Python 3.10 and later that is found; takes a torch each.
test-pythons:
	@STACK='$(STACK)' $(HOST_PYTHON) tools/test_pythons.py $(PYTHONS)

lint: setup
	@$(BIN)/ruff check --quiet .

# Keeps results (work_dirs/) and the mmcv wheel in the user's cache.
clean:
	@rm -rf .venv .venv-onedl .venv-pythons build dist *.egg-info shiftwise_mm/.mim
	@rm -rf .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo 'make setup     make .venv with everything in it (the default)'
	@echo 'make demo      train and test a small detector; options:'
	@echo '               DATA= FORM= BACKBONE= WORK_DIR= ITERS= SPARSE=0.6'
	@echo '               RESUME=1'
	@echo 'make demo-seg  the same with a segmentor; options: these without'
	@echo '               BACKBONE='
	@echo 'make test      lint, then the tests that are not slow; PYTEST_ARGS='
	@echo '               WORKERS=0 runs them in one process'
	@echo 'make test-all  lint, then all tests; PYTEST_ARGS= WORKERS='
	@echo 'make test-pythons  the wheel with mmengine alone, on each Python'
	@echo '               here from 3.10 on; PYTHONS="3.10 3.12" TORCH_SPEC='
	@echo 'make lint      ruff'
	@echo 'make clean     remove .venv, build leftovers and caches'
	@echo 'STACK=onedl behind any of them: on the forks, in .venv-onedl'
	@echo 'Variables of the set-up (PYTHON, TORCH_SPEC, FORCE_CUDA, ...):'
	@echo '               python3 tools/setup_env.py --help'
