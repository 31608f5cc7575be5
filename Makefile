# make demo [STUDY=folder]   set up, run the application, print the findings
# make test                  set up, run the tests (test-slow: the ones that take minutes)
# make fuzz [INPUTS=1120]    10 000 damaged files and settings, so many a target, against the readers
# make audit                 licences, and known vulnerabilities where an index is reachable
# make bench                 measure the application into docs/benchmarks (ten minutes, two cores)
# make lint                  formatting, lint, types
# make map [VARIANT=gpu] [BASE_IMAGE=image]
#                            build the container image (a MONAI Application Package)
# make map-test              test the image that `make map` built, and the Orthanc worker at length
# make model-table           measure the bundles into README.md's table (15 minutes, two cores)
# make train BUNDLE=name     train a bundle again from the collections in SHARED_DATA

PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
PYTHON := .venv/bin/python
READY := .venv/.ready
PHANTOM := build/demo/study
STUDY ?= $(PHANTOM)
OUTPUT ?= build/demo/result
# One process a core; torch's own threads on top would only get in each other's way.
TEST_JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(TEST_JOBS)

INPUTS ?= 1120

VARIANT ?= cpu
BASE_IMAGE ?=

SHARED_DATA ?= ../shared/data
BUNDLE ?= lung_segmentation
TRAINING_DATA := $(CURDIR)/build/training_data

# The folder that a run of `make bench` writes.
BENCHMARKS ?= docs/benchmarks

.PHONY: demo test test-slow fuzz bench model-table audit lint format map map-test train clean

demo: $(READY) $(if $(filter $(PHANTOM),$(STUDY)),$(PHANTOM)/.made)
	$(PYTHON) apps/ct_triage -i "$(STUDY)" -o "$(OUTPUT)"

test: $(READY)
	$(PYTEST) -m "not slow"

test-slow: $(READY)
	$(PYTEST) -m "slow and not deployment"

fuzz: $(READY)
	FUZZ_INPUTS=$(INPUTS) $(PYTEST) tests/fuzz

bench: $(READY)
	$(PYTHON) -m tools.bench --output $(BENCHMARKS)

model-table: $(READY) $(TRAINING_DATA)/.made
	$(PYTHON) -m tools.model_table --tree $(TRAINING_DATA)

audit: $(READY)
	$(PYTHON) -m tools.audit requirements.txt

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(READY)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

map: $(READY)
	$(PYTHON) -m tools.map --variant $(VARIANT) $(if $(BASE_IMAGE),--base $(BASE_IMAGE))

map-test: $(READY)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -rs -m deployment tests/apps

train: $(READY) $(TRAINING_DATA)/.made
	cd bundles/$(BUNDLE) && ../../$(PYTHON) -m monai.bundle run --bundle_root . \
		--config_file configs/train.json --meta_file configs/metadata.json \
		--logging_file configs/logging.conf --dataset_dir $(TRAINING_DATA) \
		--output_dir $(CURDIR)/build/$(BUNDLE)

$(TRAINING_DATA)/.made: $(READY)
	$(PYTHON) -m tools.datasets --source $(SHARED_DATA) --output $(TRAINING_DATA)
	touch $@

clean:
	rm -rf build

$(PHANTOM)/.made: $(READY)
	rm -rf $(PHANTOM)
	$(PYTHON) -m tools.phantom $(PHANTOM) --disease covid19
	touch $@

$(READY): requirements.txt pyproject.toml
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed, found " + sys.version.split()[0])'
	$(PYTHON3) -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
