# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ZOO := models_zoo/checkpoints
CHECKPOINT := $(ZOO)/wrn-10-2-trp-spatial.safetensors
SHARED := $(or $(TRPEXPORT_SHARED),../shared)
GATE := build/gate
MAX_DROP := 2.0
GATE_DATA := imagefolder:$(SHARED)/data/cifar10-jpeg.tar.gz

.PHONY: demo test test-slow lint docs gate clean

demo: $(READY)
	$(BIN)/trpexport decompose $(CHECKPOINT) --scheme spatial --add-baseline -o demo --force
	$(BIN)/trpexport verify demo
	$(BIN)/trpexport bench demo
	@echo
	@echo "The directory demo/ now holds a verified ONNX network. Try next:"
	@echo "  $(BIN)/trpexport inspect $(CHECKPOINT)"
	@echo "  $(BIN)/trpexport profile demo"
	@echo "  $(BIN)/trpexport decompose your-checkpoint.pth --scheme channel --criterion energy:0.9"

# Two processes, one thread each: PyTorch's threads only get in each other's way. Each begins with
# one half, so that what a file's tests share is mostly made once; then it takes of the other's.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(READY)
	$(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

# The site, in build/site; a warning, such as of a link that leads nowhere, is a failure.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The project gates itself: its TRP network against its plain one on 10,000 images; and the plain
# one cut to rank 2, which must be refused with exit code 1, or the gate is broken.
gate: $(READY)
	rm -rf $(GATE)
	$(BIN)/trpexport export $(ZOO)/resnet20-plain.safetensors --verify-seconds 2 -o $(GATE)/plain
	$(BIN)/trpexport decompose $(ZOO)/resnet20-trp-spatial.safetensors --rank-multiple 1 \
		--verify-seconds 2 -o $(GATE)/trp
	$(BIN)/trpexport decompose $(ZOO)/resnet20-plain.safetensors --criterion rank:2 --rank-multiple 1 \
		--verify-seconds 2 -o $(GATE)/rank2
	$(BIN)/trpexport gate --baseline $(GATE)/plain --candidate $(GATE)/trp --data $(GATE_DATA) \
		--max-drop $(MAX_DROP) --min-macs-ratio 2.8
	code=0; $(BIN)/trpexport gate --baseline $(GATE)/plain --candidate $(GATE)/rank2 \
		--data $(GATE_DATA) --max-drop $(MAX_DROP) || code=$$?; test $$code -eq 1

# constraints.txt pins what the tests ran with; torch's CPU build among it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or later is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e ".[cpu,data,train,docs,ray,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
