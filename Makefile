# make setup | demo | check | test     (ARGS="..." is passed on; KEEP=1 make demo leaves the stack up)
#
# Every step leaves its mark only when it is whole, so that a Ctrl-C in the middle costs a repetition and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
export KEENSTREAM_HOME ?= $(CURDIR)/.keenstream

PYTHON := .venv/bin/python
UV = $(shell command -v uv >/dev/null && uv --version >/dev/null 2>&1 && echo uv || echo .tools/uv/bin/uv)
ENVIRONMENT := .venv/.complete
PROJECT := .venv/.project
PARTS := $(KEENSTREAM_HOME)/cache/.parts
MODELS := $(KEENSTREAM_HOME)/models/.complete

.PHONY: help setup models system demo check test clean

help:
	@echo "make setup   install everything (a second run is instant)"
	@echo "make demo    set up, run the whole system, show what it found; KEEP=1 leaves it up"
	@echo "make check   lint, format and types"
	@echo "make test    set up, check, all tests"

setup: $(PROJECT) $(PARTS) $(MODELS)

models: $(MODELS)

demo: setup
	.venv/bin/keenstream demo $(ARGS)

check: $(PROJECT)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

# Training's tests have a process of their own: torch, scikit-learn and OpenVINO bring an OpenMP each, and a process that had
# run all other tests before them once ended there by SIGSEGV (or by a signal: see tests/offline/test_runners.py).
TRAINING := tests/offline/training
test: setup check
ifdef ARGS
	$(PYTHON) -m pytest $(ARGS)
else
	$(PYTHON) -m pytest --ignore=$(TRAINING)
	$(PYTHON) -m pytest $(TRAINING)
endif

system:
	@.ci/system

.tools/uv/bin/uv:
	@rm -rf .tools/uv.part
	python3 -m venv .tools/uv.part
	.tools/uv.part/bin/pip install --quiet --disable-pip-version-check uv
	@# a venv's scripts hold its path, but uv is a program of its own and may move
	mkdir -p .tools/uv/bin && cp .tools/uv.part/bin/uv .tools/uv/bin/uv.part
	@mv .tools/uv/bin/uv.part .tools/uv/bin/uv && rm -rf .tools/uv.part

# A sync that was cut short can leave half a package that looks whole, so an unmarked environment is made anew.
$(ENVIRONMENT): requirements.lock | system
	@[[ "$(UV)" == uv ]] || $(MAKE) --no-print-directory .tools/uv/bin/uv
	@if [[ -e $(ENVIRONMENT) ]]; then rm $(ENVIRONMENT); else $(UV) venv --quiet --clear --python 3.11 .venv; fi
	$(UV) pip sync --quiet --python $(PYTHON) requirements.lock
	@touch $(ENVIRONMENT)

$(PROJECT): pyproject.toml $(ENVIRONMENT)
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $(PROJECT)

# The Kafka jars, the Milvus server and Triton's backend folder
$(PARTS): keenstream/stack/pom.xml $(ENVIRONMENT) | $(PROJECT)
	$(PYTHON) -m keenstream.stack.fetch
	@touch $(PARTS)

$(MODELS): $(wildcard offline/release/*.py triton_models/*/config.pbtxt triton_models/*/1/*.py triton_models/*/trained/*) | $(PROJECT)
	.venv/bin/keenstream models build
	@touch $(MODELS)

clean:
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis
