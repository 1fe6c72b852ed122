# The few commands of everyday work. `make check` is what CI runs.
.PHONY: check fmt test sim swarm-sim bench testnet

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

# The table of docs/swarm-simulation.md
swarm-sim:
	cargo run --release -p tests --example swarm_sim

bench:
	cargo bench -p cairn-ledger

testnet:
	cargo run --release -- testnet
