# `make demo` and `make test` do everything on a fresh machine: environment, build, run.

PYTHON ?= python3
# One known torch rather than today's newest, so that runs compare: make TORCH=torch==2.11.0 test, in a fresh .venv.
TORCH ?= torch==2.13.0
# Three equals signs select torch's ordinary build, which is the one that torchvision's ordinary wheel fits.
PEERS ?= torch===2.14.1 torchvision===0.29.1 ultralytics-opencv-headless openvino==2026.4.* onnxruntime onnx
CLANG ?= clang++
ARGS ?=

# Tests run on one thread, so their files run side by side, as many as there are cores, in the order of their names. More
# than four would wait for the longest file. ARGS="-n 0" runs all in one process.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

PY := .venv/bin/python
LIBRARY := spp_ext/libspp_ext_cpu.so
NATIVE_SOURCES := CMakeLists.txt $(shell find cmake csrc -type f)
CXX_SOURCES := $(shell find csrc examples tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.DEFAULT_GOAL := help
.PHONY: help demo sppnet-demo test test-integration test-peers test-aarch64 test-clang bench bench-peers lint format \
        cuda-report gpu-model gpu-check gpu-bench wheel clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile
	@echo 'ARGS="..." goes to the demo or to pytest; PYTHON=... chooses the Python of a new .venv.'

demo: $(LIBRARY)  ## pool a photograph and 2,000 of its regions; ARGS="my.jpg" for another picture
	$(PY) -m spp_ext demo $(ARGS)

sppnet-demo: $(LIBRARY)  ## train narrow SPP-nets and a detector on two cores: 15 minutes; pictures in build/sppnet
	$(PY) examples/sppnet $(ARGS)

test: $(LIBRARY)  ## run the tests
	$(PY) -m pytest -q $(PARALLEL) $(ARGS)

test-integration: $(LIBRARY) .venv/.integration  ## run the tests against ONNX and inductor, and those that take minutes
	$(PY) -m pytest -q $(PARALLEL) -m integration $(ARGS)

test-peers: $(LIBRARY) .venv-peers/.ready  ## run the tests against torchvision, ultralytics and engines
	.venv-peers/bin/python -m pytest -q -m peers $(ARGS)

test-aarch64: .venv/.ready  ## test the CPU kernels for 64-bit Arm in qemu: 1 minute
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
	  { echo 'A cross compiler or qemu is missing: apt-get install g++-aarch64-linux-gnu qemu-user (Debian).'; exit 1; }
	$(PY) -m pytest -q -m toolchains -k kernels_for_aarch64 tests/portable $(ARGS)

test-clang: .venv/.ready  ## test the CPU kernels as clang++ builds them: 1 minute; CLANG=clang++-16 for another name
	@command -v $(CLANG) >/dev/null || { echo '$(CLANG) is missing: apt-get install clang (Debian), or CLANG=...'; exit 1; }
	CLANG=$(CLANG) $(PY) -m pytest -q -m toolchains -k kernels_of_clang tests/portable $(ARGS)

bench: $(LIBRARY)  ## time it against torch and the floors: 5 minutes, results in build/benchmarks
	$(PY) -m benchmarks --threads 1,2 $(ARGS)

bench-peers: $(LIBRARY) .venv-peers/.ready  ## against all peers: 20 minutes, results in benchmarks/results
	.venv-peers/bin/python -m benchmarks --threads 1,2 --compile --output benchmarks/results $(ARGS)

lint: .venv/.ready  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(PY) -m mypy
	$(PY) tools/readme_types.py

format: .venv/.ready  ## apply style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	.venv/bin/clang-format -i $(CXX_SOURCES)

cuda-report: .venv/.ready  ## print registers and shared memory of every CUDA kernel; needs nvcc, no GPU
	$(PY) tools/cuda_report.py $(ARGS)

gpu-model: $(LIBRARY)  ## predict times on GPUs from what the compiled kernels execute: 10 minutes; needs nvcc, no GPU
	$(PY) -m tools.gpu_model $(ARGS)

# Where there is a GPU there may be no network: this uses the packages of $(PYTHON) and installs nothing.
gpu-check:  ## on a machine with a GPU: build for it, test, sanitize, measure; ARGS="--steps build,suite" for a part
	$(PYTHON) tools/gpu_check.py $(ARGS)

gpu-bench:  ## on a machine with a GPU: build for it, time it against the peers, results in benchmarks/results
	$(PYTHON) tools/gpu_check.py --steps build,bench,sppnet $(ARGS)

wheel: .venv/.ready  ## build a wheel into dist/
	rm -rf build/lib*  # setuptools would pack modules that were deleted since
	$(PY) -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:  ## remove what was built; the environment stays until rm -r .venv
	rm -rf build dist *.egg-info spp_ext/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/.ready: pyproject.toml setup.py spp_ext/_version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'spp_ext needs Python 3.10 or newer as $(PYTHON): make PYTHON=... chooses another.'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) cannot create environments: install its venv module (Debian: python3-venv).'; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	  { echo '$(PYTHON) has no C headers (Python.h): install them (Debian: python3-dev).'; exit 1; }
	@echo 'Setting up .venv: torch is large, so the first time takes a few minutes.'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet '$(TORCH)' 'setuptools>=77' 'cmake>=3.25' ninja pybind11
	$(PY) -m pip install --quiet --no-build-isolation --editable '.[test,dev]'
	@touch $@

.venv/.integration: .venv/.ready
	$(PY) -m pip install --quiet --no-build-isolation --editable '.[integration]'
	@touch $@

# The peers' torch is another build, beside which the library that is already built runs as it is.
.venv-peers/.ready: Makefile | .venv/.ready
	@echo 'Setting up .venv-peers: gigabytes, so the first time takes a while.'
	$(PY) -m venv .venv-peers
	@echo '*' > .venv-peers/.gitignore
	.venv-peers/bin/python -m pip install --quiet $(PEERS) hypothesis matplotlib numpy pytest
	@touch $@

# The library stands for everything native: touched, because an edit may change only its sibling.
$(LIBRARY): .venv/.ready $(NATIVE_SOURCES)
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@
