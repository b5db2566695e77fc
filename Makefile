# Two commands do all the set-up on a machine with Python 3.10+ and make: `make demo`, `make test`.
# `make test ARGS=--slow` runs the slow tests too; ARGS are pytest's.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARM := .arm64

.PHONY: demo test test-isa test-arm check clean

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

# An arm64 Debian, with wheels that the machine's own pip fetches for it: see CONTRIBUTING.md.
$(ARM)/ready: pyproject.toml
	rm -rf $(ARM)
	mmdebstrap --arch=arm64 --variant=minbase --include=python3,gcc,libc6-dev bookworm $(ARM) \
		http://deb.debian.org/debian
	$(PYTHON) -m pip install --quiet --only-binary=:all: --python-version 3.11 \
		$$(seq -f '--platform manylinux_2_%.0f_aarch64' 17 36) --platform manylinux2014_aarch64 \
		--target $(ARM)/usr/local/lib/python3.11/dist-packages torch==2.13.0 numba numpy \
		safetensors typer rich pytest hypothesis scipy
	touch $@

# The engine and the operators on Arm, emulated. TESTS are other files or tests.
test-arm: TESTS ?= tests/engine tests/operators
test-arm: $(ARM)/ready
	mkdir -p $(ARM)/root/pointwise
	git ls-files -z | tar -c --null --files-from - | tar -x -C $(ARM)/root/pointwise
	unshare --mount sh -c 'mount -t proc proc $(ARM)/proc && mount -t sysfs sysfs $(ARM)/sys && \
		mount --rbind /dev $(ARM)/dev && exec chroot $(ARM) env -i HOME=/root PATH=/usr/bin \
		LANG=C.UTF-8 QEMU_CPU=neoverse-n1 PYTHONPATH=/root/pointwise/src sh -c \
		"cd /root/pointwise && python3 -m pytest -p no:cacheprovider $(ARGS) $(TESTS)"'

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(ARM) demo runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
