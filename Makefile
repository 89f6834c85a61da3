# Needs Python 3.11 or newer and make; the rest is installed into .venv and .tox.
# What each target does is written down in tox.ini. Arguments go through: make test ARGS="tests/core -x"

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done)
TOX := .venv/bin/tox
RUN := $(TOX) run
POSARGS = $(if $(ARGS),-- $(ARGS))

.PHONY: test test-all breakages demo bench lint format types docs matrix clean

test: $(TOX)      ## all tests but the long reliability runs, on this interpreter
	$(RUN) -e py $(POSARGS)

test-all: $(TOX)  ## all tests on this interpreter, with coverage
	$(RUN) -e full $(POSARGS)

breakages: $(TOX) ## breaks the code on purpose and expects a test to fail
	$(RUN) -e breakages $(POSARGS)

demo: $(TOX)      ## a live demonstration over real HTTP
	@$(RUN) -q -e demo $(POSARGS)

bench: $(TOX)     ## the benchmarks, in half an hour; one alone: make bench ARGS=drain
	@$(RUN) -q -e bench $(POSARGS)

lint format types docs: $(TOX)
	$(RUN) -e $@ $(POSARGS)

matrix: $(TOX)    ## every supported version that is installed here
	$(RUN) -m matrix $(POSARGS)

clean:
	rm -rf .venv .tox .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOX):
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and '$(or $(PYTHON),python3)' is not."; \
		echo "If it has another name here: make $(MAKECMDGOALS) PYTHON=..."; \
		exit 1; } >&2
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install -qq --disable-pip-version-check 'tox>=4.30' 'tox-uv>=1.28'
