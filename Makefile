# Two commands are enough: `make book` and `make test`. Both make the environment in .venv by themselves.

PYTHON ?= python3
BIN := .venv/bin
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 1200
WORKERS ?= 2
# Several processes share the cores: threads that wait without spinning, and freed memory that is kept.
SHARED := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824

.DEFAULT_GOAL := help
.PHONY: help env book pdf linkcheck course test lint lab execute bench benchlink benchjobs benchbook clean distclean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: ## make or update the environment in .venv
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "snnbook needs Python 3.11 or newer: $(PYTHON) was not found." >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(if $(filter-out file,$(origin PYTHON)),--asked)

book: env ## execute the notebooks and write _build/html/index.html
	@$(BIN)/python tools/build.py

pdf: env ## print the built book as one file, _build/snnbook.pdf (needs a Chromium)
	@$(BIN)/python tools/pdf.py

linkcheck: env ## check every link of the built book (LINKS=--external for addresses outside it too)
	@$(BIN)/python tools/linkcheck.py $(LINKS)

course: book ## write the course into _build/course: notebooks for students and instructors, slides
	@$(BIN)/python tools/course.py

test: book ## run every test: package, notebooks and pages
	@$(SHARED) $(BIN)/python -m pytest tests -n $(WORKERS) --dist loadscope --cov=snnbook --cov-fail-under=90
	@$(SHARED) $(BIN)/python -m pytest notebooks $(NBVAL) -n $(WORKERS) --dist loadscope

lint: env ## check the style with ruff
	@$(BIN)/ruff check .

lab: env ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab notebooks

execute: env ## execute the committed notebooks in place, in order
	@$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
	  --ExecutePreprocessor.timeout=1200 $(sort $(wildcard notebooks/*.ipynb))

bench: env ## measure the engine beside its peers and record it in results (BENCH="--repeats 3" for less)
	@$(BIN)/python -m pip install --quiet --no-deps -r requirements-bench.txt
	@$(BIN)/python -m benchmarks.engine $(BENCH)

benchlink: env ## measure payloads, processes, a shaped link and a server under garbage, and record it in results
	@$(BIN)/python -m benchmarks.link $(BENCH)

benchjobs: env ## measure a search whose trainings run one after the other and several at once, and record it in results
	@$(BIN)/python -m benchmarks.jobs $(BENCH)

benchbook: env ## build the book from nothing and record time, memory and page sizes in results
	@$(BIN)/python benchmarks/book.py

clean: ## remove the book, trained networks, runs and caches
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find snnbook tests tools notebooks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the environment
	@rm -rf .venv snnbook.egg-info
