# Footfall: the only commands a person needs. Each does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
T ?=
TYPES := .venv/bin/mypy packages/conditions/src packages/chassis/src packages/devstack/src proto/src/contracts services/segment-svc/src services/content-svc/src services/promo-svc/src services/gateway/src
NO_PACKAGES := The Python packages could not be fetched or put into .venv: the lines above say why. Behind a mirror or a proxy set PIP_INDEX_URL or HTTPS_PROXY, then run the same command again.
MEMBERS := packages/conditions packages/chassis packages/devstack proto services/segment-svc services/content-svc services/promo-svc services/gateway

##@ Use
.PHONY: run tour keys
run: .venv/ready ## start everything: servers, services, demo shop, storefront (Ctrl-C stops it all; PORT, SHOP_PORT)
	@exec $(PY) -m devstack
tour: .venv/ready ## play the seven use cases against the running stack, with the explain of each
	@$(PY) -m devstack.tour
keys: .venv/ready ## print the addresses and keys of what runs, for a shell: eval "$$(make -s keys)"
	@$(PY) -m devstack.keys

##@ Check
.PHONY: check test conformance faults model bench deploy-test
check: .venv/ready ## format, lint, types, import laws, size budgets, pure tests (no servers, about a minute)
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && $(TYPES) && .venv/bin/lint-imports && $(PY) tools/budget.py
	@.venv/bin/pytest -q -n $${JOBS:-2} --dist loadfile --no-loadscope-reorder -m "not servers"
test: .venv/ready ## everything, on real PostgreSQL, Valkey, Kafka, Varnish, nginx and Chromium (T=path for a part, JOBS=2 at once)
	@$(PY) -m devstack.install tests
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && $(TYPES) && .venv/bin/lint-imports && $(PY) tools/budget.py
	@.venv/bin/pytest -n $${JOBS:-2} --dist loadfile --no-loadscope-reorder $(T)
conformance: .venv/ready ## run language-neutral cases: make conformance CASES=path/to/file.json
	@$(PY) tools/conformance.py $(CASES)
faults: .venv/ready ## the long fault runs: 200 kills with one worker, 200 with a second one joining and dying
	@$(PY) -m devstack.install tests && FAULT_ROUNDS=$${FAULT_ROUNDS:-200} .venv/bin/pytest -q -s tests/faults
model: .venv/ready ## nobody sees what is not theirs: random publishes, people, forgeries, faults (SEED=1 ROUNDS=20000)
	@$(PY) -m devstack.install tests && SEED=$${SEED:-1} ROUNDS=$${ROUNDS:-20000} .venv/bin/pytest -q -s tests/model
deploy-test: .venv/ready ## build the images, bring docker-compose.yml up on a real engine (DOCKER_HOST), publish an event
	@$(PY) -m tests.deploy.live
bench: .venv/ready ## measure decisions and ingest against their baselines, in one run
	@$(PY) -m devstack.install bench && $(PY) -m tests.bench

##@ Generate
.PHONY: fmt proto lock
fmt: .venv/ready ## format and mend what can be mended
	@.venv/bin/ruff format -q . && .venv/bin/ruff check -q --fix .
proto: .venv/ready ## compile proto/, rewrite the AsyncAPI and OpenAPI documents
	@$(PY) tools/protogen.py && $(PY) tools/asyncapi.py && $(PY) tools/openapi.py
lock: .venv/ready ## pin the requirements again
	@.venv/bin/pip install -q uv && cd requirements && for f in runtime dev browser; do \
	  ../.venv/bin/uv pip compile -q -U --generate-hashes --no-header --no-annotate --python-version 3.11 $$f.in -o $$f.txt; done

##@ Deploy
.PHONY: secrets
secrets: .venv/ready ## make the secret files docker-compose.yml reads, once; prints the API keys
	@$(PY) tools/make_secrets.py

##@ Keep house
.PHONY: clean help
clean: ## forget the data and logs of make run
	@test ! -e .run/lock || flock -n .run/lock true || { echo "Footfall runs: end make run first"; exit 1; }
	@rm -rf .run
help: ## this page
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {gsub(/[$$][$$]/, "$$", $$2); printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: requirements/dev.txt requirements/runtime.txt $(MEMBERS:%=%/pyproject.toml)
	@command -v python3 >/dev/null || { echo "Python 3.11 or newer is needed"; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, found $$(python3 -V)"; exit 1; }
	@echo "Setting up .venv (about a minute, once)"
	@test -x $(PY) || python3 -m venv .venv || { echo "Python could not make .venv here (on Debian: apt install python3-venv)"; exit 1; }
	@.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt || { echo "$(NO_PACKAGES)"; exit 1; }
	@.venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation $(MEMBERS:%=-e ./%)
	@touch $@
