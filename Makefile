# Every target creates the environment in .venv first, where it is not there yet.

PYTHON ?= python3
# Installed before everything else: left to itself, pip takes torch's newest build, and gigabytes of CUDA with it.
TORCH ?= torch==2.13.0
# Where the loaders of ppl_buffer.datasets look for data; empty = fetch from the source.
PPL_BUFFER_DATA ?= $(abspath $(wildcard ../shared/data))
export PPL_BUFFER_DATA

# Processes that run tests side by side, each on one core.
WORKERS ?= auto

BIN := .venv/bin
INSTALLED := .venv/.installed
LOWEST := .venv-lowest/bin
NEIGHBOURS := .venv-neighbours/bin

# What is trained of a shipped network: all, or likelihood, which keeps its transformer.
PARTS ?= all
# What measures each shipped network, in the words of benchmarks/.
MEASURE_noisy_q := noisy_q_accuracy noisy_q_tasks noisy_q_missing "record_errors noisy_q" "likelihood_gradient noisy_q" "posterior noisy_q" gradient "calibration --model noisy_q"
MEASURE_ddm := "likelihood_accuracy ddm" "record_errors ddm" "likelihood_gradient ddm" "posterior ddm" "consistency --name ddm" "calibration --model ddm"
MEASURE_rlddm := "likelihood_accuracy rlddm" rlddm_missing rlddm_changes "record_errors rlddm" "likelihood_gradient rlddm" "posterior rlddm" "calibration --model rlddm"
MEASURE_collapsing_ddm := "likelihood_accuracy collapsing_ddm" "record_errors collapsing_ddm" "likelihood_gradient collapsing_ddm" "consistency --name collapsing_ddm" "calibration --model collapsing_ddm"
MEASURE_angle := "likelihood_accuracy angle" "record_errors angle" "posterior angle" "calibration --model angle"
MEASURE_racing_diffusion := "likelihood_accuracy racing_diffusion" "record_errors racing_diffusion" "posterior racing_diffusion" "calibration --model racing_diffusion --sets 400 --thin 24"
MEASURE_discounting := "likelihood_accuracy discounting" "record_errors discounting" "posterior discounting" "calibration --model discounting"
MEASURE_confidence := "likelihood_accuracy confidence" "record_errors confidence" "posterior confidence" "calibration --model confidence"
MEASURE_q_learning := "likelihood_accuracy q_learning" q_learning_tasks "record_errors q_learning" "posterior q_learning" "calibration --model q_learning"
MEASURE_two_step := "likelihood_accuracy two_step" "record_errors two_step" "posterior two_step" "calibration --model two_step"
MEASURE_multisensory_rho1 := "likelihood_accuracy multisensory_rho1" "record_errors multisensory_rho1" "likelihood_gradient multisensory_rho1" multisensory_evidence "consistency --name multisensory_rho1" "calibration --model multisensory_rho1"
MEASURE_multisensory_rho43 := "likelihood_accuracy multisensory_rho43" "record_errors multisensory_rho43" "likelihood_gradient multisensory_rho43" multisensory_evidence "consistency --name multisensory_rho43" "calibration --model multisensory_rho43"
MEASURE_gp := "function_accuracy gp" "record_errors gp" "consistency --name gp"
MEASURE_sawtooth := "function_accuracy sawtooth" "record_errors sawtooth" "consistency --name sawtooth"
MEASURE_table := tables "consistency --name table"

.PHONY: help venv test test-slow test-lowest test-neighbours demo bench bench-paper bench-hssm docs lint typecheck doctest

help: ## say what the targets do
	@sed -n 's/^\([a-z%-]*\):.*## /\1\t/p' Makefile | expand -t 12

venv: $(INSTALLED) ## create the environment

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -e '.[all,dev]'
	touch $@

test: $(INSTALLED) ## run the tests that take seconds; WORKERS=2 for two processes
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

test-slow: $(INSTALLED) ## run the tests that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal -m slow

test-lowest: ## run the tests with the lowest versions that pyproject.toml allows, Python 3.11, in .venv-lowest
	test -x $(LOWEST)/python || $(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install $(TORCH)
	$(LOWEST)/python -m pip install -c tests/lowest.txt -e '.[all]' hypothesis pytest pytest-xdist
	$(LOWEST)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

# What few users have beside this package, and what is not to hold back the versions of everything else.
test-neighbours: ## run the tests with PyMC, BlackJAX and the Hugging Face hub, in .venv-neighbours
	test -x $(NEIGHBOURS)/python || $(PYTHON) -m venv .venv-neighbours
	$(NEIGHBOURS)/python -m pip install $(TORCH)
	$(NEIGHBOURS)/python -m pip install -e '.[all,pymc,hub]' blackjax pytest pytest-xdist
	$(NEIGHBOURS)/python -m pytest -m "slow or not slow" tests/pymc tests/network/test_hub.py tests/benchmarks/test_pages_of_neighbours.py

demo: $(INSTALLED) ## fit people who learn from rewards, with NUTS; results in demo/
	$(BIN)/ppl-buffer demo

bench: $(INSTALLED) ## measure speed, and what the cards state, and write the cards
	set -e; for name in rollout density gradient likelihood_gradient training_step effective_samples efficiency scaling speculative hierarchical_fit formula_recovery hierarchical_particles compilations distinct_inputs compiler_options kept_memory missing_history seeds \
	  training_methods error_estimate ladder two_step_example \
	  posterior_predictive summary noisy_q_accuracy noisy_q_tasks noisy_q_missing rlddm_missing rlddm_changes q_learning_tasks "function_accuracy gp" "function_accuracy sawtooth" fourier orders_and_blocks code_lengths $(patsubst %,"consistency --name %",gp sawtooth ddm collapsing_ddm multisensory_rho1 multisensory_rho43) \
	  multisensory_evidence_truth "multisensory_evidence_truth --simulated" \
	  multisensory_evidence $(patsubst %,"likelihood_accuracy %",ddm collapsing_ddm angle racing_diffusion discounting confidence q_learning two_step rlddm multisensory_rho1 multisensory_rho43) \
	  $(patsubst %,"posterior %",noisy_q ddm angle racing_diffusion rlddm discounting confidence q_learning two_step) gradient_noise \
	  "calibration --model racing_diffusion --sets 400 --thin 24" $(patsubst %,"calibration --model %",noisy_q ddm collapsing_ddm angle discounting confidence q_learning two_step rlddm multisensory_rho1 multisensory_rho43) arviz_conversion make_card; do \
	  set -- $$name; script=$$1; shift; $(BIN)/python benchmarks/$$script.py "$$@"; done

# For how long bench-paper trains each network: steps, and once more seconds of processor time.
PAPER_STEPS ?= 6000
PAPER_SECONDS ?= 900

bench-paper: $(INSTALLED) ## train our network and its rivals on random functions and compare them; half a day on a core
	set -e; for task in gp gp_precise sawtooth; do \
	  $(BIN)/python benchmarks/paper.py --task $$task --targets 16,128 --steps $(PAPER_STEPS) --seconds $(PAPER_SECONDS); done
	$(BIN)/python benchmarks/added_buffer.py
	$(BIN)/python benchmarks/buffer_for_a_module.py

# PYTHON=python3.12 gets the newest HSSM. NETWORK is its likelihood network ddm.onnx, a file; without it HSSM has its
# analytical likelihood alone.
bench-hssm: $(INSTALLED) ## a fit from nothing to the posterior beside HSSM, which gets .venv-hssm; NETWORK=ddm.onnx
	test -x .venv-hssm/bin/python || $(PYTHON) -m venv .venv-hssm
	.venv-hssm/bin/python -m pip install hssm
	$(BIN)/python benchmarks/hssm_end_to_end.py --hssm-python .venv-hssm/bin/python --hssm-network "$(NETWORK)"

# The command of the package trains; what measures and writes cards is in benchmarks/, which a wheel has not.
zoo-%: $(INSTALLED) ## train a shipped network by its recipe, from seed to card; PARTS=likelihood keeps its transformer
	$(BIN)/ppl-buffer zoo --train $* --parts $(PARTS)
	cp runs/$*/$*.safetensors ppl_buffer/pretrained/
	set -e; for name in $(MEASURE_$*) "make_card $*"; do \
	  set -- $$name; script=$$1; shift; $(BIN)/python benchmarks/$$script.py "$$@"; done

docs: $(INSTALLED) ## build the documentation into docs/_build/html; runs the tutorials
	$(BIN)/python -m pip install -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

lint: $(INSTALLED) ## ruff, its formatting too
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check ppl_buffer tests benchmarks examples

typecheck: $(INSTALLED) ## mypy
	$(BIN)/python -m mypy

doctest: $(INSTALLED) ## run the docstring examples
	$(BIN)/python -m pytest --doctest-modules ppl_buffer --ignore=ppl_buffer/pymc
