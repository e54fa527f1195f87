# make        these lines
# make run    the environment, the default study, its page and report; STUDY=cifar10 for another
#             study, V=1 for all that Snakemake says
# make test   the environment, all tests
# make lint   ruff: rules and format; mypy: types; snakefmt: format of the rules
# make docs   the pages of docs/ with search, in build/docs
# make wheels the lock's packages, but torch's, as files in wheels/: for a machine without an index
# make offline  the environment from wheels/, with the torch that the machine has
# make cpu    the environment with a torch for CPUs, from the index TORCH_INDEX
# make lock   resolve requirements.lock anew (needs uv), and write envs/ect.yaml from it

PYTHON ?= python3
STUDY ?=
export PATH := $(CURDIR)/.venv/bin:$(PATH)
SNAKEMAKE = snakemake --cores all $(if $(STUDY),--configfile workflow/studies/$(STUDY).yaml)
NAME = $(subst -,_,$(if $(STUDY),$(STUDY),digits))

# `import ect` finds this clone, from any folder: the environment links to it.
define made
	ln -sfn "$(CURDIR)/ect" "$$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch .venv/installed
endef

.PHONY: help run test lint docs wheels offline cpu lock
help:
	@sed -n '/^#/!q; s/^# //p' Makefile

run: .venv/installed
	$(SNAKEMAKE)
	$(SNAKEMAKE) --report results/$(NAME)/report.html

test: .venv/installed
	python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow/Snakefile workflow/rules/*.smk

docs: .venv/installed
	mkdocs build

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "make: $(PYTHON) is Python %d.%d; allowed: 3.11 to 3.13 (make PYTHON=python3.12 ...)" % v)'
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(made)

# The lock's packages but torch's, and the lock's versions of torch and torchvision.
BUT_TORCH = awk '/^[a-z]/ {kept = !/^(torch|torchvision|triton|nvidia-|cuda-)/} kept' requirements.lock
TORCHES = $(shell sed -n 's/^\(torch\|torchvision\)==\([^ ]*\).*/\1==\2/p' requirements.lock)

# The wheels are for this version of Python only.
wheels:
	mkdir -p wheels
	$(BUT_TORCH) > wheels/lock
	$(PYTHON) -m pip wheel --quiet --no-deps --require-hashes --requirement wheels/lock --wheel-dir wheels

offline:
	$(PYTHON) -m venv --system-site-packages .venv
	python -m pip install --quiet --no-index --no-deps wheels/*.whl
	$(made)

cpu:
	@test -n "$(TORCH_INDEX)" || { echo "make cpu: TORCH_INDEX is empty; allowed: the address of an \
	  index with builds of $(TORCHES) for CPUs"; exit 1; }
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --no-deps --index-url "$(TORCH_INDEX)" $(TORCHES)
	$(BUT_TORCH) > .venv/lock
	python -m pip install --quiet --no-deps --require-hashes --requirement .venv/lock
	$(made)

lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --output-file requirements.lock
	python envs/lock.py
