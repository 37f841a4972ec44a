# A bare `make` says what there is.

ALGO ?= cvf
DEPTH ?= 1
PSI ?=
EPOCHS ?=
SEED ?=
DATA ?=
DATA_DIR ?=
DEVICE ?=
RESUME ?=
CHECKPOINT ?=
ARGS ?=

CARGO ?= cargo
FEATURES = $(if $(filter cuda,$(DEVICE)),--features cuda)
EQPROP = $(CARGO) run --release --quiet $(FEATURES) --
CHOICES = $(if $(PSI),--psi $(PSI)) $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(SEED),--seed $(SEED)) \
          $(if $(DATA),--data $(DATA)) $(if $(DEVICE),--device $(DEVICE))
FOLDER = $(if $(DATA_DIR),--data-dir $(DATA_DIR))

.DEFAULT_GOAL := help
.PHONY: help train eval config test lint bench tensorboard

help: ## Show this help
	@echo 'make TARGET [VARIABLE=VALUE …]'
	@echo
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 16
	@echo
	@echo 'ALGO=ep|cep|vf|cvf  DEPTH=hidden layers  PSI=degrees  EPOCHS=n  SEED=n'
	@echo 'DATA=auto|mnist|fashion-mnist|glyphs  DATA_DIR=folder of IDX files  DEVICE=auto|cpu|cuda'
	@echo 'RESUME=auto|checkpoint  CHECKPOINT=file  ARGS="any other flags"'
	@echo
	@echo 'Example: make train ALGO=cvf DEPTH=2 PSI=45'

train: ## Train a network: ALGO DEPTH PSI EPOCHS SEED DATA DATA_DIR DEVICE RESUME ARGS
ifneq ($(filter-out auto,$(RESUME)),)
	$(EQPROP) train --resume $(RESUME) $(CHOICES) $(FOLDER) $(ARGS)
else
	$(EQPROP) train --algo $(ALGO) --depth $(DEPTH) $(if $(RESUME),--resume auto) $(CHOICES) $(FOLDER) $(ARGS)
endif

eval: ## Test a checkpoint: CHECKPOINT DATA_DIR DEVICE ARGS
	$(EQPROP) eval --checkpoint $(CHECKPOINT) $(FOLDER) $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

config: ## Print the resolved configuration: ALGO DEPTH PSI EPOCHS SEED DATA DEVICE ARGS
	$(EQPROP) config --algo $(ALGO) --depth $(DEPTH) $(CHOICES) $(ARGS)

test: ## Run all tests
	$(CARGO) test --release

lint: ## Check format and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings

bench: ## Measure speed
	$(CARGO) bench

tensorboard: ## Install TensorBoard where it is missing, and open it on runs/
	@test -x .venv/bin/tensorboard || { python3 -m venv .venv && .venv/bin/pip install --quiet tensorboard 'setuptools<81'; }
	.venv/bin/tensorboard --logdir runs $(ARGS)
