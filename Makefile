# Two commands: `make quickstart` runs the whole chain, `make test` runs the tests.
# Both build .venv first, once. TORCH_INDEX=URL takes torch from another wheel index.

SHELL := /bin/bash
VENV ?= .venv
TORCH_INDEX ?=
IS_SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for name in python3 python3.12 python3.11; do \
	$$name -c '$(IS_SUPPORTED)' 2>/dev/null && echo $$name && break; done)
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# DeepSpeed looks for ninja on the path when it builds an operator; each environment keeps its own,
# because two environments that share one rebuild it in turn.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/$(VENV)/torch_extensions

# What rows about hosts and disks use. Installed by root where no service manager would start an
# ssh server at once; elsewhere what needs a missing one is skipped and says so.
FAULT_TOOLS := openssh-server pdsh iproute2 strace
INSTALL_FAULT_TOOLS = if [ "$$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get >/dev/null; then \
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(FAULT_TOOLS) >/dev/null 2>&1 || \
	echo "not all of $(FAULT_TOOLS) could be installed"; fi

.PHONY: quickstart test test-all faults lint requirements clean

quickstart: $(VENV)/.installed
	magicbert quickstart --configs configs/tiny --run.name quickstart

# One thread each: two processes of as many threads as there are cores would wait for each other.
test test-all: export OMP_NUM_THREADS := 1
test: lint
	python -m pytest -q -n 2 -m "not slow"

test-all: lint
	python -m pytest -q -n 2

# Every row of the fault matrix; a run that was cut goes on. Writes docs/results/faults.json.
faults: $(VENV)/.installed-dev
	@$(INSTALL_FAULT_TOOLS)
	python -m pytest -q tests/distributed/test_command_line_hosts.py
	python tests/faults/run.py

lint: $(VENV)/.installed-dev
	ruff check .
	ruff format --check .
	mypy

# Each stamp is one step of the installation; it is redone only when its inputs change.
# torch comes first and alone, so that nothing pulls another build of it; the next step brings
# what it needs, which another index may not have.
$(VENV)/.torch: constraints.txt | requirements
	"$(PYTHON)" -m venv $(VENV)
	@echo "installing torch$(if $(TORCH_INDEX), from $(TORCH_INDEX))"
	$(PIP) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	@echo "installing magicbert and its dependencies"
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools of the tests"
	$(PIP) --editable '.[dev]'
	touch $@

requirements:
	@test -n "$(PYTHON)" || { echo "magicbert needs Python 3.11 or 3.12; name one with PYTHON=..." >&2; exit 2; }
	@"$(PYTHON)" -c '$(IS_SUPPORTED)' || { echo "$(PYTHON) is not Python 3.11 or 3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' || { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 2; }
	@"$(PYTHON)" -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_paths()["include"], "Python.h").exists())' \
		|| { echo "Python.h is missing, DeepSpeed builds its CPU operators with it: apt-get install python3-dev" >&2; exit 2; }
	@command -v "$${CXX:-g++}" >/dev/null \
		|| { echo "a C++ compiler is missing, DeepSpeed builds its CPU operators with it: apt-get install g++" >&2; exit 2; }
	@command -v git >/dev/null || { echo "git is missing: apt-get install git" >&2; exit 2; }

clean:
	rm -rf $(VENV) build *.egg-info
