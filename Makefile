# make demo    what can be told of photographs and an autoencoder, from pictures to the report, offline and in minutes
#              (first command on a fresh machine)
# make test    the whole test suite
# make serve   Prefect server, UI, pools, deployments and workers; SCHEDULES=on starts the schedules,
#              DATABASE=postgres keeps Prefect's runs in a PostgreSQL of its own instead of SQLite
# make stop    stop all of that, and check that it is gone
# make subset  real data that environment variables name (tasks/experiments/subset.yaml): an hour or more
# make s3      a local S3 server for tries and tests; its data goes when it ends (Ctrl-C)
# make mobile  the app, into mobile/dist, with the network of models/, or those of the folder MODELS; also mobile-serve and
#              mobile-test
# make explorer  the page that shows a run's mistakes, into tasks/explorer/page, where its built files are committed; also
#              explorer-test
# make chaos   what takes too long for every test run: an evaluation on several hosts that die, stall and restart, and
#              a long fuzz run over damaged images; its figures go to docs/reliability. An hour or two, best as root
# make bench   telltale's ways against the plain ones, reduced sizes, under 20 minutes; TELLTALE_BENCH_PICTURES names
#              a folder of photographs to measure on; make bench-full takes full sizes and hours
# make lint    style and types; make lint-web the same of the TypeScript in mobile/ and explorer/, with npm
# make docs    the site of README and docs/, into build/site; a link that leads nowhere fails it
# make api     pages of all modules from their docstrings, into build/api
# make clean   remove the environment, caches and Prefect's database; the store with its results stays

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
HOME_FOLDER := $(or $(patsubst ~/%,$(HOME)/%,$(TELLTALE_HOME)),.telltale)

# For example: make serve SERVE="--cpu-limit 4"
SERVE ?=

.PHONY: demo test serve stop subset s3 mobile mobile-serve mobile-test explorer explorer-test chaos bench bench-full lint lint-web docs api clean .venv
.DEFAULT_GOAL := demo

demo: $(INSTALLED)
	@$(BIN)/python -m deployments.cli evaluate demo

# Two files at once on any machine: tests that start servers wait more than they compute. In order, the long ones first.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

serve: $(INSTALLED)
	@$(BIN)/python -m deployments.bootstrap serve $(SERVE)

stop:
	@if [ -e $(INSTALLED) ]; then $(BIN)/python -m deployments.bootstrap stop; else echo "nothing was running"; fi

subset: $(INSTALLED)
	@$(BIN)/python -m deployments.cli evaluate subset

s3: $(INSTALLED)
	@$(BIN)/python -m deployments.s3

# For example: make mobile MODELS=exported FIRST=small; without MODELS the app has the network that comes with telltale.
# FIRST is the one that it starts with, PICTURES a folder in place of its own reference pictures.
mobile: MODELS ?= models
mobile: mobile/node_modules/.installed $(INSTALLED)
	npm --prefix mobile run build
	$(BIN)/python -m deployments.app --models "$(MODELS)" $(if $(FIRST),--first "$(FIRST)") \
		$(if $(PICTURES),--pictures "$(PICTURES)")

mobile-serve:
	@test -e mobile/dist/index.html || { echo "build it first: make mobile"; exit 1; }
	@echo "http://localhost:8600/"
	@cd mobile/dist && $(PYTHON) -m http.server --bind 127.0.0.1 8600

mobile-test: mobile/node_modules/.installed $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integration/test_mobile.py

mobile/node_modules/.installed: mobile/package.json mobile/package-lock.json
	npm --prefix mobile ci
	@touch $@

explorer: explorer/node_modules/.installed
	npm --prefix explorer run build

explorer-test: explorer/node_modules/.installed $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integration/test_explorer.py

explorer/node_modules/.installed: explorer/package.json explorer/package-lock.json
	npm --prefix explorer ci
	@touch $@

chaos: $(INSTALLED)
	TELLTALE_CHAOS=on TELLTALE_CHAOS_RESULTS=docs/reliability OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
		tests/chaos tests/property/test_fuzz_images.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks --markdown "$(HOME_FOLDER)/benchmarks/bench.md" --json "$(HOME_FOLDER)/benchmarks/bench.json"

bench-full: $(INSTALLED)
	$(BIN)/python -m benchmarks --full --markdown "$(HOME_FOLDER)/benchmarks/bench-full.md" \
		--json "$(HOME_FOLDER)/benchmarks/bench-full.json"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-web: mobile/node_modules/.installed explorer/node_modules/.installed
	npm --prefix mobile run lint
	npm --prefix explorer run lint

# Material's word about its successor would be read as a warning of ours.
docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site/index.html"

api: $(INSTALLED)
	$(BIN)/python -m pdoc --docformat google --no-show-source --output-directory build/api storage tasks flows deployments
	@echo "build/api/index.html"

clean: stop
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info mobile/node_modules mobile/dist explorer/node_modules
	rm -rf "$(HOME_FOLDER)/prefect" "$(HOME_FOLDER)/postgres" "$(HOME_FOLDER)/logs" "$(HOME_FOLDER)"/services.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "results stay in $(HOME_FOLDER)/store"

.venv: $(INSTALLED)

# torch goes first: everything else is then resolved against the build that is there.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@
