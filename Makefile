# `make demo` and `make test` create what they need in .venv and work from a fresh clone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := pyproject.toml constraints.txt
NATIVE := $(wildcard native/*.?pp native/kernels/*.cpp native/cmake/CMakeLists.txt)

.PHONY: help demo test lint types unit bench clean

help:
	@echo "make demo   compare two box losses on the built-in data and write a report (under 10 minutes, installation included)"
	@echo "make test   lint, types and tests"
	@echo "make bench  compare what the losses cost with other libraries, in multiples of the streaming limit"
	@echo "make clean  remove the virtual environment and the demo's results"

demo: $(VENV)/.lab
	@$(BIN)/lossatlas compare --data digits --objective fcos --vary box=giou,ciou --seeds 3 --steps 600 --out runs/demo

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

# One thread for each of the two workers: many small tensors gain nothing from more. Without a compiler the kernels are not
# built and the library works through PyTorch; the tests then fail and say so.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 LOSSATLAS_REQUIRE_KERNELS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal

$(VENV)/.pip:
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.lab: $(VENV)/.pip $(SOURCES) $(NATIVE)
	@echo "Installing lossatlas and what it needs into $(VENV): a minute or two, most of it PyTorch."
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[lab]"
	@touch $@

# At once, and not on top of .lab, so that the kernels are built once.
$(VENV)/.dev: $(VENV)/.pip $(SOURCES) $(NATIVE)
	@echo "Installing lossatlas, the libraries it is compared with and the tools of development into $(VENV)."
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[lab,peers]" --group dev
	@touch $(VENV)/.lab $@

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) runs/demo
