# Everything starts here: `make run` and `make test` need Python >= 3.11 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format drill bench samples clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/'

setup: $(STAMP)  ## .venv with the package, its extras and the test tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "streamproc needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another: make setup PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'Python has no venv module: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@$(BIN)/python -c 'import cv2' || { echo 'OpenCV needs two system libraries: apt-get install libgl1 libglib2.0-0'; exit 1; }
	@touch $@

run: setup  ## the main job on the sample cameras: live status, detections on MQTT at 127.0.0.1:1883
	$(BIN)/streamproc run samples/cameras.yaml

test: setup  ## every test but the long ones
	$(BIN)/python -m pytest -m 'not drill and not bench and not gpu and not alone' \
		--numprocesses logical --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest -m 'alone and not drill and not gpu'

lint: setup  ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

drill: setup  ## long fault drills and soaks
	$(BIN)/python -m pytest -m drill -s --timeout 3600

bench: setup  ## figures
	$(BIN)/python -m pytest -m bench -s --timeout 3600

format: setup  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## forget everything that was made
	rm -rf $(VENV) build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
