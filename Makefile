# The verbs of this project. Everything that must be installed is installed by `make setup`, which the
# others call. One build profile serves all of them but `build`, and every build is of the whole workspace: cargo
# unites the features of what it builds together, so a smaller selection would compile the dependencies again.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/tributary/target
BIN := $(CARGO_TARGET_DIR)/debug

SEEDS ?= 200
FROM ?= 1
EVENTS ?= 300000
bench-changes: EVENTS := $(if $(filter command line environment,$(origin EVENTS)),$(EVENTS),500000)
bench-ingest: EVENTS := $(if $(filter command line environment,$(origin EVENTS)),$(EVENTS),1000000)
bench-recovery: EVENTS := $(if $(filter command line environment,$(origin EVENTS)),$(EVENTS),10000000)
bench-nexmark: EVENTS := $(if $(filter command line environment,$(origin EVENTS)),$(EVENTS),5000000)
bench-regions: EVENTS := $(if $(filter command line environment,$(origin EVENTS)),$(EVENTS),3000000)
export WHAT DELAYS CUTS DAYS CHANGED REGIONS QUERIES CORES PEERS OUT RUNS CHECK SINK RATE LATENCY_MS SECONDS_RUN CLIENTS MINUTES NETWORK FAULTS

.PHONY: run test check fix bench bench-nexmark bench-regions bench-links bench-serve bench-ingest bench-changes bench-recovery sim chaos build setup clean-data

## The demonstration: three regions agree, part and agree again.
run: setup
	cargo build --workspace --all-targets
	$(BIN)/tributary demo --events $(EVENTS)

## Everything CI runs, with the time of each stage.
test: setup
	scripts/test

## Formatting, lints and documentation; changes nothing.
check: setup
	scripts/check

## Formats and applies what clippy can apply.
fix: setup
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

## Micro-benchmarks of the operators.
bench: setup
	cargo bench --workspace --profile dev --bench operators

## Nexmark over files: EVENTS= QUERIES=q0,q1|all CORES=1,2 RUNS= PEERS=duckdb,flink,dbsp,postgres SINK= OUT=file CHECK=0.
bench-nexmark: setup
	EVENTS=$(EVENTS) scripts/bench-nexmark

## Regions with delays and cuts between them: WHAT=visibility,cuts,throughput DELAYS= CUTS= DAYS= CHANGED= REGIONS=.
bench-links: setup
	scripts/bench-links

## Three regions with a third of the events each against one with all: EVENTS= QUERIES= CORES=2 RUNS= OUT=file CHECK=0.
bench-regions: setup
	EVENTS=$(EVENTS) scripts/bench-regions

## Clients that read while a source runs: RATE= LATENCY_MS= CLIENTS= SECONDS_RUN= QUERIES=q0,q1 CORES= OUT=file.
bench-serve: setup
	scripts/bench-serve

## Rows over the wire: EVENTS= QUERIES=copy_text,inserts|all CORES=1,2 RUNS= OUT=file.
bench-ingest: setup
	EVENTS=$(EVENTS) scripts/bench-ingest

## Updates and deletes of rows that views read: EVENTS= QUERIES=groups,joined|all CORES=1,2 RUNS= OUT=file.
bench-changes: setup
	EVENTS=$(EVENTS) scripts/bench-changes

## Checkpoints while a source runs, and restarts: EVENTS= QUERIES=q9,q18 CORES= RATE= OUT=file.
bench-recovery: setup
	EVENTS=$(EVENTS) scripts/bench-recovery

## SEED=n replays one seed with its trace; SEEDS=count FROM=first runs a range.
sim: setup
	cargo build --workspace --all-targets
ifdef SEED
	$(BIN)/tributary-simulator --seed $(SEED)
else
	$(BIN)/tributary-simulator --seeds $(SEEDS) --from $(FROM)
endif

## Real processes under faults: MINUTES=5 SEED= NETWORK=both|proxies|packets FAULTS=kill,cut RATE= OUT=file.
chaos: setup
	scripts/chaos

## The release binary.
build: setup
	cargo build --release --package tributary-server
	@echo "built $(CARGO_TARGET_DIR)/release/tributary"

setup:
	@scripts/setup
