# Each target makes what it needs on a machine with Python 3.10 to 3.12, make and a C++ compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo experiments bench bench-check test test-fast test-slow test-gpu test-wheel test-containers test-browser soak fuzz sanitize audit check format serve clean

help:
	@echo "make demo         the whole way on Complete Journey: log -> scorer -> graph -> Triton -> answer (about 5 minutes)"
	@echo "make serve        serve what the demo built, until Ctrl-C"
	@echo "make experiments  the paper's experiments on Complete Journey, quick size"
	@echo "make bench        serving speed through a live Triton, with perf_analyzer (an hour; best on an idle machine)"
	@echo "make bench-check  some of its ratios on a small corpus, against those in docs/results (minutes)"
	@echo "make test-fast    tests/unit without the files marked heavy: no server, a minute; for the edit loop"
	@echo "make test         all tests but the slow and the GPU ones, a live Triton among them; WORKERS=2 at a time"
	@echo "make test-slow    the slow ones"
	@echo "make test-gpu     those that need a GPU, where there is one"
	@echo "make test-wheel   the built wheel with each extra in a clean environment (minutes; needs a package index)"
	@echo "make test-containers  images are built and run, where a Docker engine is or can be started"
	@echo "make test-browser  the page of nann explore in Chromium, which npm fetches where there is none"
	@echo "make soak         good, bad and cancelled requests for SOAK_S=1800 seconds: nothing may grow"
	@echo "make fuzz         coverage-guided, FUZZ_S=60 seconds a target"
	@echo "make sanitize     the native kernel under address and undefined-behaviour sanitizers"
	@echo "make audit        known vulnerabilities of the installed packages (asks a database on the network)"
	@echo "make check        ruff, mypy, import-linter, clang-format"
	@echo "make format       let ruff and clang-format format the code"
	@echo "make clean        remove what the other targets built"

# Packages, native kernel and a real Triton. Made again when what it depends on changes.
$(INSTALLED): pyproject.toml CMakeLists.txt $(wildcard nann/_kernels*pp python_backend/server/_*pp)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/nann demo

experiments: $(INSTALLED)
	$(BIN)/nann experiments

bench: $(INSTALLED)
	$(BIN)/nann bench

bench-check: $(INSTALLED)
	$(BIN)/nann bench --check

serve: $(INSTALLED)
	$(BIN)/nann serve $(patsubst %,--histories %,$(wildcard build/data/complete_journey/histories))

# A file stays with one worker, for what its tests share; files that start servers, the slowest, come first.
WORKERS ?= 2
IN_PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(INSTALLED)
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow and not gpu and not wheel and not containers and not browser"

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow and not gpu and not heavy" tests/unit

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

test-wheel: $(INSTALLED)
	$(BIN)/python -m pytest -m wheel tests/wheel

test-containers: $(INSTALLED)
	$(BIN)/python -m pytest -m containers tests/containers

test-browser: $(INSTALLED)
	$(BIN)/python -m pytest -s -m browser tests/browser

SOAK_S ?= 1800
soak: $(INSTALLED)
	NANN_SOAK_S=$(SOAK_S) $(BIN)/python -m pytest -s tests/integration/test_soak.py

FUZZ_S ?= 60
FUZZ_TARGETS := parameters tensors features filter_text manifest array bundle_file
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[fuzz]"
	for target in $(FUZZ_TARGETS); do \
	  $(BIN)/python tests/fuzz/coverage_guided.py $$target -max_total_time=$(FUZZ_S) || exit 1; \
	done

SANITIZE := -std=c++17 -O1 -g -Wall -Wextra -Wno-maybe-uninitialized -fsanitize=address,undefined -fno-sanitize-recover=all -pthread
build/kernels_driver: tests/fuzz/kernels_driver.cpp $(wildcard nann/_kernels*.hpp)
	@mkdir -p build
	$(CXX) $(SANITIZE) -I nann $< -o $@

sanitize: build/kernels_driver
	$<

audit: $(INSTALLED)
	$(BIN)/pip-audit --local --skip-editable

CXX_FILES := $(wildcard nann/_*.cpp nann/_*.hpp python_backend/server/_*.cpp python_backend/server/_*.hpp tests/fuzz/*.cpp)
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf $(VENV) build
