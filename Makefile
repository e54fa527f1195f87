# make run    the environment, the default study, its report
# make test   the environment, all tests
# make lint   ruff: rules and format; mypy: types; snakefmt: format of the rules
# make wheels the lock's packages, but torch's, as files in wheels/: for a machine without an index
# make offline  the environment from wheels/, with the torch that the machine has
# make lock   resolve requirements.lock anew (needs uv)

PYTHON ?= python3
STUDY ?=
export PATH := $(CURDIR)/.venv/bin:$(PATH)
SNAKEMAKE = snakemake --cores all $(if $(STUDY),--configfile workflow/studies/$(STUDY).yaml)
NAME = $(subst -,_,$(if $(STUDY),$(STUDY),digits))

.PHONY: run test lint wheels offline lock
run: .venv/installed
	$(SNAKEMAKE)
	$(SNAKEMAKE) --report results/$(NAME)/report.html

test: .venv/installed
	python -m pytest -n 2 --dist loadfile

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow/rules/*.smk

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "make: $(PYTHON) is Python %d.%d; allowed: 3.11 to 3.13 (make PYTHON=python3.12 ...)" % v)'
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --require-hashes --requirement requirements.lock
	touch $@

# The wheels are for this version of Python only.
wheels:
	mkdir -p wheels
	awk '/^[a-z]/ {kept = !/^(torch|torchvision|triton|nvidia-|cuda-)/} kept' requirements.lock > wheels/lock
	$(PYTHON) -m pip wheel --quiet --no-deps --require-hashes --requirement wheels/lock --wheel-dir wheels

offline:
	$(PYTHON) -m venv --system-site-packages .venv
	python -m pip install --quiet --no-index --no-deps wheels/*.whl
	touch .venv/installed

lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --output-file requirements.lock
