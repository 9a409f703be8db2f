# Everything a developer or CI does. Needs only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Compiled modules are kept, whatever the environment says. Without them each worker compiles all tests anew (10 s of
# CPU), and each process that a test starts all of Edge (0.3 s).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help test test-service test-vllm lint trace demo bench clean
help:
	@echo "make test   environment, dependencies, real model server, all tests"
	@echo "make test-service   under a real systemd, behind real proxies, in a browser, as a container image and as a wheel (root; Debian or Ubuntu)"
	@echo "make test-vllm   request by request, a real vLLM on VLLM_PORT (8000) directly and through Edge"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make trace  write docs/stream-path.md anew: which functions run for a request, a token and a failover"
	@echo "make demo   a real model answering through Edge, until Ctrl-C"
	@echo "make bench  what a relayed token costs, beside other relays (PEERS=\"nginx plain\" for a quick look)"
	@echo "make clean  remove the environment"

$(STAMP): pyproject.toml edge/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "edge needs Python 3.11 or newer: set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "this Python lacks venv: apt-get install python3-venv (Debian, Ubuntu), then run make again"; exit 1; }
	@echo "preparing $(VENV) (about a minute the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[demo]' --group dev
	@touch $@

# More workers than cores, since many tests wait: for a clock, a process or a model.
test: $(STAMP) lint
	$(BIN)/python -m pytest -n 4 --dist loadfile

test-service: $(STAMP)
	$(BIN)/python -m pytest -m service -rs tests/service

test-vllm: $(STAMP)
	VLLM_PORT=$(or $(VLLM_PORT),8000) $(BIN)/python -m pytest -m vllm tests/vllm

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# By way of another file: when the trace fails, the page stays as it was.
trace: $(STAMP)
	$(BIN)/python tests/docs/stream_path.py > docs/.stream-path.new || { rm -f docs/.stream-path.new; exit 1; }
	@mv docs/.stream-path.new docs/stream-path.md

demo: $(STAMP)
	$(BIN)/edge demo

bench: $(STAMP)
	$(BIN)/python tests/bench/run.py --peers "$(PEERS)" --scenarios "$(SCENARIOS)" --rounds $(or $(ROUNDS),3) --scale $(or $(SCALE),1)

clean:
	rm -rf $(VENV)
