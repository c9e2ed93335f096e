# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKPOINT := models_zoo/checkpoints/resnet20-fashion-trp.safetensors

.PHONY: demo test test-slow lint clean

demo: $(READY)
	$(BIN)/trpexport decompose $(CHECKPOINT) --scheme spatial --baseline -o demo --force
	$(BIN)/trpexport verify demo
	$(BIN)/trpexport bench demo
	@echo
	@echo "The directory demo/ now holds a verified ONNX network. Try next:"
	@echo "  $(BIN)/trpexport inspect $(CHECKPOINT)"
	@echo "  $(BIN)/trpexport bench demo --profile"
	@echo "  $(BIN)/trpexport decompose your-checkpoint.pth --scheme channel --criterion energy:0.9"

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# constraints.txt pins what the tests ran with; torch's CPU build among it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or later is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e ".[cpu,data,train,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
