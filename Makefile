# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 20
# Of `make bench`; given on its command line only, for an environment may have its own NAME.
NAME :=
ARGS :=
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check bench protos clean

demo: $(VENV)/.demo
	$(BIN)/edged demo --seconds $(SECONDS)

test: $(VENV)/.test check
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Without NAME: what there is.
bench: $(VENV)/.test
	$(BIN)/python -m benchmarks$(if $(NAME),.$(NAME) $(ARGS))

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	@touch $@

# Regenerates the committed files; needs the `dev` extra.
protos: $(VENV)/.test
	$(PIP) --editable '.[dev]'
	cd protos && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=../edged/wire/pb \
		--pyi_out=../edged/wire/pb --grpc_python_out=../edged/wire/pb edge_agent.proto results.proto && \
		../$(BIN)/python -m grpc_tools.protoc -I. --python_out=../edged/wire/pb \
		--pyi_out=../edged/wire/pb sparkplug_b.proto
	sed -i 's/^import \(.*_pb2\) as/from edged.wire.pb import \1 as/' edged/wire/pb/*_grpc.py

clean:
	rm -rf $(VENV) build dist demo-output
