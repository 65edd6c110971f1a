# Everything a checkout needs. `make` alone lists the targets.
#
#   make PYTHON=python3.12 setup     another Python, 3.11 to 3.13
#   make test ARGS="-k h_detr -x"    more arguments for pytest or the demo
#   make test ARGS=--cov             with the lines that no test reaches
#   make test JOBS=8                 more tests at a time, up to 6 GB each
#   make test STACK=onedl            with the maintained forks of mmcv, mmdet
#                                    and mmengine, set up in .venv-onedl

PYTHON ?= $(firstword $(shell command -v python3.11 python3 2>/dev/null))
JOBS ?= 2
ARGS ?=
STACK ?=
export STACK
RUN := .venv$(addprefix -,$(STACK))/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs format clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup:  ## create .venv, compile mmcv once, install this package
	@$(or $(PYTHON),python3) tools/setup

demo: setup  ## train, test and draw an H-DETR on synthetic images
	@$(RUN) tools/demo.py $(ARGS)

test: setup  ## run the whole test suite
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: setup  ## check style, common mistakes and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	$(if $(STACK),,@$(RUN) -m mypy)

docs: setup  ## build the documentation's site into site/
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo 'Open site/index.html'

format: setup  ## lay the code out as lint wants it
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

clean:  ## remove what builds and tests left; keeps .venv, data, work_dirs
	@rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache \
		.coverage*
	@find . -path './.venv*' -prune -o -path ./work_dirs -prune \
		-o -path ./data -prune -o -name __pycache__ -type d -prune \
		-exec rm -rf {} +
