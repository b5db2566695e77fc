# Two commands do all the set-up on a machine with Python 3.10+ and make: `make demo`, `make test`.
# `make test ARGS=--slow` runs the slow tests too; ARGS are pytest's.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-isa check clean

# torch first and pinned: an unpinned torch pulls gigabytes of CUDA packages on Linux.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/pointwise demo

# Two processes, of 3 GB at the end; a file's tests stay together, whose fixtures they share.
test: $(VENV)/ready
	$(BIN)/pytest --numprocesses auto --maxprocesses 2 --dist loadfile $(ARGS)

# The engine and the operators on the next smaller instruction set that this processor has.
test-isa: $(VENV)/ready
	POINTWISE_ISA=$$($(BIN)/python -c "from pointwise.engine.cpu.isa import available; \
		print(available()[:2][-1].name)") $(BIN)/pytest --numprocesses auto --maxprocesses 2 \
		--dist loadfile $(ARGS) tests/engine tests/operators

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
