# make setup | demo | test | chat | lint.  CRAWL=CC-MAIN-2026-43 runs the demo on Common Crawl instead of its own web.
SHELL  := /bin/bash
PYTHON ?= python3.11
RECIPE ?= recipes/demo.yaml
CRAWL  ?=
FILES  ?= 1

# Common Crawl's pages through the same recipe, in a workspace of their own.
CRAWLED = $(if $(CRAWL),name=demo-$(CRAWL) crawl.source=common-crawl crawl.crawl_id=$(CRAWL) crawl.max_files=$(FILES))

.PHONY: setup demo test chat lint clean
setup: .venv/ready

.venv/ready: constraints.txt $(wildcard requirements/*.txt) requirements/install.sh
	@PYTHON=$(PYTHON) bash requirements/install.sh

demo: setup
	@.venv/bin/python jobs/pipeline.py $(RECIPE) $(CRAWLED)

chat: setup
	@.venv/bin/python jobs/serve.py $(RECIPE) $(CRAWLED)

test: setup
	@.venv/bin/python -m pytest tests

lint: setup
	@.venv/bin/ruff check . && .venv/bin/python -m mypy && PYTHONPATH=platform .venv/bin/lint-imports

clean:
	rm -rf .venv
