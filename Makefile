# The few commands of everyday work. `make check` is what CI runs.
.PHONY: help check fmt test sim swarm-sim bench testnet

help:
	@echo 'make check          what CI runs: format, clippy, documentation, all tests'
	@echo 'make fmt            format the code'
	@echo 'make test           all tests'
	@echo 'make sim SEED=4711  one seed of the simulator, told in full'
	@echo 'make swarm-sim      the table of docs/measurements/swarm-simulation.md'
	@echo 'make bench          measure the account tree and the store'
	@echo 'make testnet        four validators on this machine'

check:
	.ci/run

fmt:
	cargo fmt --all

test:
	cargo test --workspace

# One seed of the simulation, told in full: make sim SEED=4711
SEED ?= 1
sim:
	CAIRN_SIM_SEED=$(SEED) cargo test -p tests --test simulation every_seed -- --nocapture

# The table of docs/measurements/swarm-simulation.md
swarm-sim:
	cargo run --release -p tests --example swarm_sim

bench:
	cargo bench -p cairn-ledger

testnet:
	cargo run --release -- testnet
