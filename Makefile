# The two commands: `make book` and `make test`. Everything lives in .venv; nothing is installed elsewhere.
PYTHON     ?= python3
VENV       ?= .venv
UV_VERSION ?= 0.13.8
SCALE      ?= smoke
JOBS       ?= 2
PORT       ?= 8000
BIN        := $(VENV)/bin
SITE       := _build/html
# Two notebooks (or two test workers) share the processors: one thread each is faster, and results repeat exactly.
export OMP_NUM_THREADS := 1
# With CI=true a warning of the book build is an error; elsewhere it is only shown.
ifeq ($(CI),true)
STRICT := -n -W --keep-going
endif

.DEFAULT_GOAL := help
.PHONY: help setup book notebooks pages test lint format sync serve lock clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "  variables: SCALE=smoke|tiny|small|paper  JOBS=2 (notebooks at once)  PYTHON=python3  PORT=8000"

setup: $(VENV)/.done  ## create .venv from the hashed lock
$(VENV)/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "This project needs Python 3.11 or newer, but $(PYTHON) is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q 'uv==$(UV_VERSION)'
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	$(BIN)/uv pip check -q --python $(BIN)/python
	@touch $@

book: notebooks pages  ## execute the notebooks at SCALE (default smoke) and build the book
	$(BIN)/jupyter-book build -q $(STRICT) .
	@echo
	@echo "The book is built. Open $(CURDIR)/$(SITE)/index.html, or run: make serve"

notebooks: setup
	@mkdir -p build
	SCALE=$(SCALE) $(BIN)/doit run --continue -n $(JOBS) notebooks

pages: setup notebooks
	$(BIN)/efflib pages

test: setup  ## run the whole test suite (the browser tests read the built book)
	MPLBACKEND=agg $(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: setup  ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy efflib

format: setup  ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sync: setup  ## write notebooks/<paper>/<table>.ipynb (no outputs) from the .py sources
	$(BIN)/python -m efflib.notebooks sync

serve:  ## show the built book at http://127.0.0.1:8000 (or PORT)
	@test -f $(SITE)/index.html || { echo "There is no book in $(SITE) yet. Run: make book"; exit 1; }
	@echo "Open http://127.0.0.1:$(PORT)/ (Ctrl-C stops the server)"
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

lock: $(VENV)/bin/uv  ## bring requirements.lock in line with pyproject.toml (UPGRADE=1 takes newer versions)
	$(BIN)/uv pip compile -q pyproject.toml $(if $(UPGRADE),--upgrade) --extra book --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" -o requirements.lock
	sed -n 's/ *\\$$//;/^[a-z]/p' requirements.lock > constraints.txt
$(VENV)/bin/uv:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q 'uv==$(UV_VERSION)'

clean:  ## remove the built book, executed notebooks and smoke records (results/ and .venv stay)
	rm -rf _build build book/executed book/generated .pytest_cache .mypy_cache .ruff_cache
