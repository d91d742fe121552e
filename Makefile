# make book, make test: all there is to know. Everything else is for writing.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8000
ARGS ?=

# One thread per process (two processes run side by side), no network, this clone before any other.
export OMP_NUM_THREADS := 1
export PYTHONPATH := $(CURDIR)/tests/offline:$(CURDIR)
export PYTHONHASHSEED := 0

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 120 --nbval-sanitize-with tests/nbval.cfg

.PHONY: help book site notebooks chapter serve pdf test fast lint bench mutants reseed clean

help:
	@echo "make book                execute every chapter, build the whole book into _build/html"
	@echo "make test                validate everything: library, every notebook, the built pages"
	@echo "make site                build the book from the stored notebooks"
	@echo "make serve               build it and look at it, http://localhost:$(PORT)"
	@echo "make pdf                 build it and print it, one file: _build/credit-assignment.pdf (needs Chromium)"
	@echo "make chapter C=backprop/credit   execute and build one chapter"
	@echo "make notebooks           execute every chapter, store the notebooks"
	@echo "make fast                the tests without the book"
	@echo "make bench               times: ratios to autograd, spikes beside the original program"
	@echo "make mutants             plant bugs, one at a time, and see which are found"
	@echo "make reseed SEED=1       run every chapter with other random numbers: which claims still hold?"

$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
	  f"Python 3.11 or newer is needed, found {v.major}.{v.minor}; try: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || env -u PYTHONPATH $(PYTHON) -m venv $(VENV)
	env -u PYTHONPATH $(BIN)/python -m pip install -q $(PIP_ARGS) -r requirements.txt -c constraints.txt
	touch $@

book: notebooks site

notebooks: $(READY)
	$(BIN)/python -m tools.notebooks build

site: $(READY)
	rm -rf _build/html _build/.doctrees
	$(BIN)/jupyter-book build . -W -n --keep-going
	test -f _build/html/book/index.html
	@echo "The book: _build/html/index.html"

chapter: $(READY)
	@test -n "$(C)" || { echo "say which: make chapter C=backprop/credit"; exit 2; }
	$(BIN)/python -m tools.notebooks build $(C)
	$(BIN)/jupyter-book build . -W -n --keep-going -q
	@echo "Look at it: _build/html/book/$(C).html"

serve: site
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

pdf: site
	$(BIN)/python -m tools.pdf

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(PYTEST) $(NBVAL) tests book $(ARGS)

fast: lint
	$(PYTEST) -m "not book and not browser" tests $(ARGS)

bench: $(READY)
	mkdir -p _build
	( $(BIN)/python -m tools.bench; $(BIN)/python -m tools.bench_bursts; \
	  $(BIN)/python -m tools.bench_spikes --compile ) | tee _build/bench.txt
	$(BIN)/python -m tools.bars

mutants: $(READY)
	$(BIN)/python -m tools.mutants $(ARGS)

reseed: $(READY)
	@test -n "$(SEED)" || { echo "say which: make reseed SEED=1"; exit 2; }
	$(BIN)/python -m tools.reseed $(SEED) $(C)

clean:
	rm -rf _build
