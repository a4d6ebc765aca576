# The commands a contributor needs. `make test` and `make demo` work on a fresh machine.

CARGO ?= cargo

.PHONY: help deps lint test demo chaos bench-copy deny

help:
	@echo 'make test    install what is missing, run every test'
	@echo 'make demo    two servers, eight writers, a move forth, back and forth again'
	@echo '             ARGS="--switchovers 10" for more of them'
	@echo 'make chaos   every fault at every step of a switchover, on real servers; about an hour.'
	@echo '             ARGS="--help" lists how to try less, or at random'
	@echo 'make bench-copy'
	@echo '             the copy timed beside pglogical, pg_dump, native replication and pgcopydb;'
	@echo '             ARGS="--help" lists its options, benches/README.md says what it does'
	@echo 'make lint    formatting and clippy'
	@echo 'make deps    install PostgreSQL with pglogical, PgBouncer and the build libraries'
	@echo 'make deny    licences, sources and bans of the dependencies (needs cargo-deny)'

deps:
	@scripts/deps.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Each test starts two servers and a daemon, so two at once, whatever the machine has.
test: deps
	$(CARGO) test --locked --workspace -- --test-threads=2

demo: deps
	$(CARGO) build --locked --release --workspace --bin pgferry --bin demo
	$${CARGO_TARGET_DIR:-target}/release/demo $(ARGS)

chaos: deps
	$(CARGO) run --locked -p pgferry-tests --bin chaos -- $(ARGS)

bench-copy:
	@benches/copy $(ARGS)

deny:
	$(CARGO) deny check bans licenses sources
