# make demo   train a small network with the learning rate set by mutual information
# make test   lint and the quick tests; make test-all: types and all tests as well
# make bench  speed beside other packages; make accuracy: estimates beside known truths
# make docs   the documentation, in docs/_build/html; make notebooks: those of
#               examples/notebooks, run, for it
# make test-matrix  the tests with every Python here, oldest and newest packages
# make scaling  time and memory against points, features, devices; make overhead: what
#               steering costs beside a constant rate, on MNIST
# make soak  the tests of docs/reliability.md in their long form, and their tables; make
#            noise: what noise does to the rate, on digits and MNIST; make controllers:
#            rates set by policies beside tuned schedules, on tasks and optimizers (hours)
# make paper  the paper's experiments on all images (DATA_DIR=..., 19 hours; may be stopped)
# make mutants  changes to the files that set rates and count neighbours, which the
#               tests should notice
# Each makes .venv first where it is missing. Needs git, make and a Python >= 3.11.

DATASET ?= digits
PYTEST_ARGS ?= -n 2

venv := .venv
python := $(venv)/bin/python
installed := $(venv)/.installed

.PHONY: demo test test-all test-matrix lint types format docs notebooks bench accuracy scaling overhead soak noise controllers paper mutants clean

package := $(wildcard optax_mi/*.py optax_mi/*/*.py)
notebooks := $(patsubst examples/%,docs/%,$(wildcard examples/notebooks/*.ipynb))

demo: $(installed)
	@$(python) -m examples.mnist --dataset $(DATASET) \
		$(if $(DATA_DIR),--data-dir "$(DATA_DIR)") \
		$(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(TRAIN_SIZE),--train-size $(TRAIN_SIZE)) $(if $(LR),--lr $(LR))

test: $(installed)
	@start=$$(date +%s) && $(MAKE) --no-print-directory lint && \
	$(python) -m pytest $(PYTEST_ARGS) -m "not slow and not e2e" && \
	echo "make test took $$(($$(date +%s) - start)) s. Not run: types, and the tests" \
		"marked slow and e2e (make test-all)."

test-all: lint types
	$(python) -m pytest $(PYTEST_ARGS)

test-matrix: $(installed)
	$(python) tests/matrix.py $(if $(ONLY),--only $(ONLY)) --pytest-args="$(PYTEST_ARGS)"

docs: notebooks $(venv)/.docs
	$(python) -m sphinx --jobs auto --fail-on-warning --keep-going --builder html docs docs/_build/html

notebooks: $(notebooks)

docs/notebooks/%.ipynb: examples/notebooks/%.ipynb $(venv)/.docs $(package)
	@mkdir -p $(@D)
	$(python) -m nbconvert --execute --to notebook --output-dir $(@D) $<

lint: $(installed)
	$(python) -m ruff format --check
	$(python) -m ruff check

types: $(installed)
	$(python) -m pyright
	@PATH="$(CURDIR)/$(venv)/bin:$$PATH" $(python) -m pyright --verifytypes optax_mi --ignoreexternal

format: $(installed)
	$(python) -m ruff format
	$(python) -m ruff check --fix

bench accuracy: $(installed)
	$(python) -m pip install --quiet --group bench
	$(python) tests/benchmarks/$(if $(filter bench,$@),speed,accuracy).py $(N)

scaling: $(installed)
	$(python) tests/benchmarks/scaling.py

soak: $(installed)
	OPTAX_MI_SOAK=1 $(python) -m pytest $(PYTEST_ARGS) tests/reliability

noise: $(installed)
	$(python) -m tests.benchmarks.noise $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

controllers: $(installed)
	$(python) -m tests.benchmarks.controllers $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") \
		$(if $(ONLY),--only $(ONLY)) $(if $(METHODS),--methods $(METHODS))

paper: $(installed)
	$(python) -m examples.paper.full $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

mutants: $(installed)
	$(python) -m pip install --quiet --group mutants
	$(python) tests/reliability/mutants.py $(if $(ONLY),--only $(ONLY))

overhead: $(installed)
	$(python) -m tests.benchmarks.overhead $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

clean:
	rm -rf $(venv) .venv-matrix runs build dist docs/_build docs/notebooks .pytest_cache .ruff_cache

$(venv)/.docs: $(installed)
	$(python) -m pip install --quiet --group docs
	@touch $@

# The first interpreter that is new enough; PYTHON=... names another.
$(installed): pyproject.toml
	@set -e; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "optax_mi needs Python 3.11 or newer: name one with make PYTHON=..." >&2; \
		exit 1; \
	fi; \
	echo "Making $(venv) with $$("$$found" --version)"; \
	"$$found" -m venv $(venv)
	$(python) -m pip install --quiet --upgrade "pip>=25.1"
	$(python) -m pip install --quiet --editable ".[examples,tensorboard]" --group dev
	@touch $@
