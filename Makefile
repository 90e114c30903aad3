# Two commands for a fresh clone. Both only call what the README shows.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

OLDEST_DIFFUSERS = 0.37.0

.PHONY: demo test fuzz test-slurm test-oldest environment check

# The whole default study, then ten lines of what was found. Five minutes on 2 cores after the installation.
demo: environment
	snakemake all
	stablevelocity summary results/digits

test: environment
	pytest -n auto -m "not slurm"

# Ten minutes of study files, pictures and states that no table holds, others at each run; not part of CI.
fuzz: environment
	FUZZ=20000 pytest -n 0 -q -k any tests/study/test_any_value.py tests/data/test_decoding.py
	FUZZ=1000 pytest -n 0 -q -k any tests/training/test_import_weights.py

# A real SLURM, started by the tests: needs root and Debian's packages, and says so. Twelve minutes on 2 cores.
test-slurm: environment
	pytest -m slurm -rs

# The schedulers under the oldest diffusers that pyproject.toml admits, beside an environment that has a newer one.
test-oldest: environment
	uv pip install --quiet --no-deps --target .oldest diffusers==$(OLDEST_DIFFUSERS) httpx httpcore h11 anyio
	PYTHONPATH=$(CURDIR)/.oldest pytest -n auto tests/schedulers

# What CI checks besides the tests.
check: environment
	ruff check .
	ruff format --check .
	snakefmt --check workflow
	pyright
	lint-imports
	python .ci/dead_code.py

environment: .venv/installed

.venv/installed: envs/requirements.txt envs/uv.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/uv.txt
	uv pip install --python .venv/bin/python --compile-bytecode --require-hashes -r envs/requirements.txt
	uv pip install --python .venv/bin/python --no-deps --editable .
	touch $@
