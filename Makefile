# Everything here works in a virtual environment, .venv, made from the locks (locks/*.txt, every file by its hash).
# A machine needs Python 3.11 or newer, git and make.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
CORE_COVERAGE := 95
WORKERS ?= auto
MINUTES ?= 10
ARGS ?=
# The first that runs and is new enough; say another with: make PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --fork-strategy fewest --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --annotation-style line
# torch is not in locks/lm.txt: its usual build for Linux brings 3 GB for GPUs. pip takes a build for processors where it is told of one.
TORCH := torch==2.13.0
NO_TORCH := $(foreach name,torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
	cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx),--no-emit-package $(name))
INSTALL := $(BIN)/uv pip install --python $(BIN)/python
# A dot a second while what follows DOTTED runs; it ends with the status of that.
DOTTED := dotted() { (while sleep 1; do printf .; done >&2) & dots=$$!; status=0; "$$@" || status=$$?; kill $$dots; echo >&2; return $$status; }; dotted

.PHONY: help demo test cluster lm lint bench soak web lock clean

help: ## what can be made
	@echo 'make TARGET, where TARGET is'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1	\2/p' Makefile

demo: $(VENV)/demo.stamp ## a lab's secret model is evaluated on a hospital's secret records
	@$(BIN)/strongroom demo $(ARGS)
	@echo; echo 'These commands lie in $(BIN): first type  . $(BIN)/activate'

test: lint ## lint, types and every test, with the branch coverage of the core
	@command -v bwrap >/dev/null || echo 'bubblewrap is not installed; the sandbox is tested on namespaces alone'
	@echo 'Testing; the first dots take a few seconds ...'
	@$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-branch --cov-report=term:skip-covered \
		--cov-fail-under=$(CORE_COVERAGE) $(ARGS)
	@echo 'make test: all passed'

cluster: $(VENV)/ray.stamp ## the tests of jobs and of building stores on two Ray nodes; installs 500 MB, which no other test needs
	@$(BIN)/python -m pytest tests/test_jobs_ray.py tests/test_lm_ray.py -p no:randomly $(ARGS)

lm: $(VENV)/lm.stamp ## the tests of models that retrieve, and of their stores; installs torch and faiss, which no other test needs
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_lm_*.py -n $(WORKERS) $(ARGS)

lint: $(VENV)/dev.stamp ## ruff and mypy
	@echo 'Linting ...'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo 'Checking types; half a minute the first time ...'
	@$(BIN)/mypy

bench: $(VENV)/dev.stamp ## every published figure again, into bench/figures.json; ARGS=--quick leaves out the slow ones
	@$(BIN)/python bench/run_all.py $(ARGS)

soak: $(VENV)/dev.stamp ## the tests again and again in other orders with other examples, for MINUTES=10
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); round=0; \
	while [ "$$(date +%s)" -lt "$$end" ]; do \
		round=$$(( round + 1 )); echo "Round $$round ..."; \
		$(BIN)/python -m pytest -x --soak -n $(WORKERS) --hypothesis-seed="$$(date +%s)" $(ARGS) || exit 1; \
	done; echo "soak: $$round rounds passed"

web: web/node_modules/.package-lock.json ## the chat page: types, lint, its tests, and its built form (needs npm)
	@cd web && npm run --silent types && npm run --silent check && npm run --silent test && npm run --silent build

lock: $(VENV)/setup.stamp ## resolve the locks again; ARGS=--upgrade takes newer versions
	@echo 'Resolving ...'
	@$(LOCK) --extra dev -o locks/dev.txt $(ARGS)
	@$(LOCK) -c locks/dev.txt -o locks/core.txt
	@$(LOCK) -c locks/dev.txt --extra room -o locks/room.txt
	@$(LOCK) -c locks/dev.txt --extra demo -o locks/demo.txt
	@$(LOCK) -c locks/dev.txt --extra lm --extra retrievers --extra bucket --group lm $(NO_TORCH) -o locks/lm.txt $(ARGS)
	@$(LOCK) -c locks/lm.txt -c locks/dev.txt --extra ray --extra store -o locks/ray.txt $(ARGS)
	@$(subst pyproject.toml,,$(LOCK)) -c locks/dev.txt --group setup -o locks/setup.txt $(ARGS)
	@if grep -nE '://' locks/*.txt; then echo 'a lock names a host' >&2; exit 1; fi
	@wc -l locks/*.txt

clean: ## remove the virtual environment, caches and what was built
	rm -rf $(VENV) web/node_modules dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find src tests bench examples vectors -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up -----------------------------------------------------------------------------------------------------------

$(VENV)/setup.stamp: locks/setup.txt
	@python='$(PYTHON)'; \
	if [ -z "$$python" ]; then echo 'No Python 3.11 or newer found; install one, or: make PYTHON=/path/to/python' >&2; exit 1; fi; \
	printf '%s' "Making $(VENV) with $$("$$python" --version) ..."; $(DOTTED) "$$python" -m venv $(VENV) >/dev/null \
		|| { echo 'Python has no venv; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@printf 'Installing the installer (uv) and the build backend (hatchling), each by its hash ...'
	@$(DOTTED) $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/setup.txt
	@touch $@

web/node_modules/.package-lock.json: web/package-lock.json
	@echo 'Installing what web/package-lock.json names, each by its hash ...'
	@cd web && npm ci --no-audit --no-fund
	@touch $@

$(VENV)/lm.stamp: locks/lm.txt $(VENV)/dev.stamp
	@printf 'Installing faiss, torch and what belongs to them beside what the tests need ...'
	@$(INSTALL) --quiet --no-deps --require-hashes -r $<
	@$(DOTTED) $(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	@touch $@

$(VENV)/ray.stamp: locks/ray.txt $(VENV)/dev.stamp
	@echo 'Installing Ray beside what the tests need ...'
	@$(INSTALL) --quiet --require-hashes -r $<
	@touch $@

$(VENV)/demo.stamp $(VENV)/dev.stamp: $(VENV)/%.stamp: locks/%.txt pyproject.toml $(VENV)/setup.stamp
	@echo "Installing what locks/$*.txt names, $$(grep -c '^[a-z0-9]' $<) packages; a minute or two where they must be fetched ..."
	@$(INSTALL) --require-hashes -r $<
	@printf 'Compiling them; some seconds, so that no command is slow the first time ...'
	@$(DOTTED) $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib src || true # what is for another Python does not compile
	@echo 'Installing strongroom itself ...'
	@$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@
