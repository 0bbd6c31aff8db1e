# Sluice: everything a developer or a new user runs. `make help` lists it.
# Needs python3 (3.11 to 3.13), git and make; no root. All packages are pinned by hash in requirements/.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AUDIT := $(VENV)-audit
DATA ?= ./sluice-data
PORT ?= 8080
TESTS ?= tests
PYTEST ?= -q -n 2 --dist loadfile --no-loadscope-reorder --durations 10
FUZZ_SECONDS ?= 5
# The same cases at each run, so that a failure can be repeated; FUZZ_SEED=$RANDOM draws others.
FUZZ_SEED ?= 1
BENCH ?=
BENCH_PEERS ?=
CHAOS ?=
MAX_LINES := 400
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
LOCKED := requirements/uv.txt requirements/dev.txt
FOLDERS := auth gateway model_store monitoring sluice workers tests benchmarks examples alembic

.DEFAULT_GOAL := help
.PHONY: help install up test test-all test-debian chaos fuzz check audit bench bench-all bench-quick bench-peers lock clean
.DELETE_ON_ERROR:

help:  ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv and install everything from the hash-pinned lock files

up: $(STAMP)  ## Start Sluice on this machine with a trained demo (Ctrl-C stops it)
	@exec $(BIN)/sluice up --demo --data "$(DATA)" --port $(PORT)

test: $(STAMP)  ## Run the test suite, without what takes long (TESTS=tests/test_up.py runs a part)
	$(BIN)/python -m pytest $(PYTEST) $(TESTS)

test-debian: $(STAMP)  ## Run what needs Debian's redis-server, chromium, prometheus, wrk, libfaketime and PyTorch, and what takes longer
	@for program in redis-server chromium promtool wrk; do command -v $$program >/dev/null || { \
		echo "$$program is missing: apt-get install redis-server chromium prometheus wrk libfaketime python3-torch" >&2; exit 1; }; done
	SLUICE_TEST_REDIS="$$(command -v redis-server)" $(BIN)/python -m pytest -q -m "debian or not debian" \
		tests/test_debian.py tests/test_hot_lanes.py tests/test_faults.py tests/test_load.py tests/test_benchmarks.py \
		tests/test_rolling.py tests/chaos
	SLUICE_TEST_REDIS="$$(command -v redis-server)" $(BIN)/python -m pytest $(PYTEST) -m "debian or not debian" \
		tests/test_documents.py tests/test_live_canaries.py tests/test_canary_restarts.py tests/test_many_models.py \
		tests/test_model_cards.py tests/test_variants.py tests/test_torchscript_uploads.py tests/test_drain.py \
		tests/test_submission.py tests/test_dispatch.py tests/test_sentinels.py tests/test_job_watch.py tests/test_file_jobs.py
	$(BIN)/python -m pytest $(PYTEST) -m "not debian" \
		tests/test_every_dialect.py tests/test_grpc_clients.py tests/test_triton_client.py tests/test_kserve_client.py \
		tests/test_mlflow_client.py tests/test_tensorflow_serving_client.py tests/test_openai_client.py \
		tests/test_client_alone.py tests/test_demo.py tests/test_demo_files.py tests/test_parity.py \
		tests/test_running_bounds.py tests/test_client_events.py tests/test_queue_outlook.py tests/test_serving_opens.py \
		tests/test_several_signatures.py
	$(BIN)/python -m pytest $(PYTEST) -m debian tests/test_format_table.py

test-all: $(STAMP)  ## Run every test: the whole corpus of hostile and of honest models too (10 minutes more)
	SLUICE_TEST_ALL=1 $(BIN)/python -m pytest $(PYTEST) -m "not debian" $(TESTS)

chaos: $(STAMP)  ## Break everything under 200,000 jobs for an hour and prove that none is lost (CHAOS="--minutes 5 --jobs 5000")
	$(BIN)/python -m tests.chaos $(CHAOS)

fuzz: $(STAMP)  ## Fuzz what reads strangers' bytes, and the HTTP interface (FUZZ_SECONDS=600 for each target)
	$(BIN)/python -m tests.fuzzing --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	$(BIN)/python -m tests.fuzzing.interface --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

check: $(STAMP)  ## Check format, lint, types, the walls between packages, and file lengths
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@find $(FOLDERS) -name '*.py' -exec awk -v most=$(MAX_LINES) \
		'END {if (FNR > most) print FILENAME ": " FNR " lines, at most " most " are allowed"}' {} \; \
		| { ! grep .; } && echo "No file is longer than $(MAX_LINES) lines."

audit: $(STAMP)  ## Look for known faults: bandit over the code, pip-audit over the locked packages (needs its service)
	[ -x $(AUDIT)/bin/bandit ] || { $(BIN)/python -m venv --clear $(AUDIT) && \
		VIRTUAL_ENV="$(abspath $(AUDIT))" $(BIN)/uv pip sync --require-hashes requirements/audit.txt; }
	$(AUDIT)/bin/bandit --quiet --configfile pyproject.toml --recursive auth gateway model_store monitoring sluice workers
	$(AUDIT)/bin/pip-audit --disable-pip --no-deps --ignore-vuln GHSA-wj6h-64fc-37mp \
		--requirement requirements/prepare.txt --requirement requirements/gateway.txt --requirement requirements/background.txt

bench: $(STAMP)  ## Measure all targets of the benchmark (BENCH="--only throughput" measures a part)
	$(BIN)/python -m benchmarks $(BENCH)

bench-all: bench bench-peers  ## Measure everything: all targets, 500 models on one worker among them, and the others

bench-quick: $(STAMP)  ## See that the benchmark itself works: a little of everything, no figures
	$(BIN)/python -m benchmarks --quick

bench-peers: $(STAMP)  ## Install and measure what else there is beside Sluice (BENCH_PEERS="mosec triton" measures a part)
	$(BIN)/python -m benchmarks.peers $(BENCH_PEERS)

lock: $(STAMP)  ## Compile the lock files again (after a change of pyproject.toml)
	echo uv | $(BIN)/$(LOCK) - -o requirements/uv.txt
	printf 'bandit\npip-audit\n' | $(BIN)/$(LOCK) - -o requirements/audit.txt
	$(BIN)/$(LOCK) pyproject.toml --extra dev -o requirements/dev.txt
	for extra in gateway worker prepare background; do \
		$(BIN)/$(LOCK) pyproject.toml --extra $$extra --extra s3 -c requirements/dev.txt -o requirements/$$extra.txt || exit 1; \
	done

clean:  ## Remove the environment and all caches (never sluice-data)
	rm -rf $(VENV) $(AUDIT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info

# The environment is made once, and made again when a lock file or pyproject.toml changes.
$(STAMP): pyproject.toml $(LOCKED)
	@for candidate in "$(PYTHON)" python3.13 python3.12 python3.11 python3 python; do \
		[ -n "$$candidate" ] || continue; \
		"$$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
			2>/dev/null && found="$$candidate" && break; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Sluice needs Python 3.11, 3.12 or 3.13 with its venv module, and none was found on the PATH." >&2; \
		echo "Install one (Debian and Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || "$$found" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	VIRTUAL_ENV="$(abspath $(VENV))" $(BIN)/uv pip sync --require-hashes $(LOCKED)
	VIRTUAL_ENV="$(abspath $(VENV))" $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
