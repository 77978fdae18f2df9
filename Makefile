# Two commands need nothing but Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
METADATA := setup.cfg pyproject.toml constraints.txt clients/python/setup.cfg clients/python/pyproject.toml

.PHONY: help setup setup-test peers demo demo-predictions serve test lint reference clean

help:
	@echo "make setup      the environment in $(VENV)"
	@echo "make demo       a node, four workers and one prompt; writes demo-output/best.ply and best.png"
	@echo "make demo-predictions  a node, twenty games and a miner; writes demo-output/receipt.json"
	@echo "make serve      the node; make serve FLAGS='--public_api.server_port 9000'"
	@echo "make test       the test suite; make test TESTS=tests/unit"
	@echo "make lint       style, types, and who may import whom"
	@echo "make peers      environments of their own for syft and for published clients, which some tests need"
	@echo "make reference  write docs/reference.md anew from the code"

setup: $(VENV)/installed

setup-test: $(VENV)/installed-test

$(VENV)/installed: $(METADATA)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and exactly: any other version would bring gigabytes of CUDA libraries.
	$(PIP) torch==2.13.0
	$(PIP) -e . -e clients/python
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) -e .[test,postgres,cloudflare] -e clients/python
	touch $@

# Each holds back versions that the node needs newer, or is there to be used unmodified.
COGS := 0.23.1 0.20.0 0.16.12 0.13.7
PYLONS := 1.0.0 1.9.0 2.0.0 2.3.1
peers: .venv-syft/installed .venv-triton/installed .venv-tus/installed .venv-replicate/installed \
		$(COGS:%=.venv-cog-%/installed) $(PYLONS:%=.venv-pylon-%/installed)

.venv-%/installed: scripts/peer_requirements.py setup.cfg
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --disable-pip-version-check --quiet $$($(PYTHON) scripts/peer_requirements.py $* torch)
	.venv-$*/bin/python -m pip install --disable-pip-version-check --quiet $$($(PYTHON) scripts/peer_requirements.py $*)
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

demo-predictions: setup
	$(BIN)/python scripts/demo_predictions.py

serve: setup
	$(BIN)/grid-node serve $(FLAGS)

# As many processes as there are cores, two to four; WORKERS=0 runs everything in one. The long files come first, and
# the suite starts hundreds of processes, so that what they compile is kept whatever the environment says.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= $(shell echo $$(( $(CORES) < 2 ? 2 : $(CORES) > 4 ? 4 : $(CORES) )))
test: export PYTHONDONTWRITEBYTECODE =
test: setup-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS) $(PYTEST_FLAGS)

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

reference: setup-test
	$(BIN)/python scripts/reference.py

clean:
	rm -rf $(VENV) .venv-* build demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
