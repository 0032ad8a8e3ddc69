# make 3.81 and a POSIX shell are enough. `make` alone lists what there is to do.

EXTRAS = train,serve
VENV = .venv
ARGS =

export VENV

# A stamp of its own for each set of extras and for this very folder, so that a second `make` is instant
# and a checkout that was moved or copied sets itself up again.
comma := ,
place := $(shell pwd -P | cksum | cut -d' ' -f1)
stamp := $(VENV)/ready-$(place)-$(subst $(comma),-,$(EXTRAS))
dev_stamp := $(VENV)/ready-$(place)-train-serve-dev
inputs := pyproject.toml constraints.txt tools/setup.sh src/baseai/__init__.py

.PHONY: help setup demo test check format bench bench-scheduling lock clean

help:
	@echo 'make demo    set up, then train a real model on this machine, from lease to ledger to page'
	@echo 'make test    set up, then run all tests (ARGS="-k lease" passes words to pytest)'
	@echo 'make setup   only set up: .venv with the exact versions of constraints.txt (EXTRAS= leaves torch out)'
	@echo 'make check   format, lint, types and house rules, as continuous integration checks them'
	@echo 'make format  put code and settings page into the form that check wants'
	@echo 'make bench   measure the figures, each beside its peer'
	@echo 'make bench-scheduling TRACES=folder   every policy on public traces, as a judge sees it (QUICK=1: 3 minutes)'
	@echo 'make lock    write constraints.txt anew (ARGS=--upgrade takes newer versions)'
	@echo 'make clean   remove .venv and what was built; your data folder stays'

setup: $(stamp)
	@echo 'setup: ready in $(VENV)'

$(stamp): $(inputs)
	@sh tools/setup.sh '$(EXTRAS)'
	@touch '$@'

$(dev_stamp): $(inputs)
	@sh tools/setup.sh train,serve,dev
	@touch '$@'

demo: $(stamp)
	@'$(VENV)/bin/baseai' demo $(ARGS)

test: $(dev_stamp)
	@'$(VENV)/bin/python' -m pytest -n 2 $(ARGS)

check: $(dev_stamp)
	@'$(VENV)/bin/ruff' format --check .
	@'$(VENV)/bin/ruff' check .
	@'$(VENV)/bin/mypy'
	@'$(VENV)/bin/python' -m pytest -q tests/house

format: $(dev_stamp)
	@'$(VENV)/bin/ruff' format .
	@'$(VENV)/bin/ruff' check --fix .
	@'$(VENV)/bin/python' tools/settings_page.py

bench-scheduling: $(dev_stamp)
	@test -n '$(TRACES)' || { echo 'make bench-scheduling TRACES=folder: where are the traces?'; exit 2; }
	@PYTHONPATH=src:. '$(VENV)/bin/python' bench/scheduling/$(if $(ARGS),policies,table).py --traces '$(TRACES)' $(if $(QUICK),--quick) $(ARGS)

bench: $(dev_stamp)
	@'$(VENV)/bin/python' bench/run.py $(ARGS)

lock: $(dev_stamp)
	@'$(VENV)/bin/python' -m pip install -q --disable-pip-version-check -r requirements/lock.txt
	@'$(VENV)/bin/uv' pip compile -q --universal --python-version 3.11 --all-extras --no-annotate \
		--custom-compile-command 'make lock' $(ARGS) -o constraints.txt pyproject.toml

clean:
	rm -rf '$(VENV)' build dist src/*.egg-info .mypy_cache .ruff_cache .hypothesis
