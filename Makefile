# The commands a contributor needs. `make test` and `make demo` work on a fresh machine.

CARGO ?= cargo

# Between which majors `make majors` runs.
PAIRS ?= 13:15 15:17

.PHONY: help deps lint test majors demo chaos soak bench-copy bench-switchover bench-verify deny

help:
	@echo 'make test    install what is missing, run every test'
	@echo 'make majors  the tests that depend on the version of PostgreSQL, from 13 to 15 and from 15'
	@echo '             to 17; PAIRS="15:17" or ARGS="-- crossing::" for less. The servers that are'
	@echo '             missing are unpacked into target/majors, which takes minutes and a network'
	@echo 'make demo    two servers, eight writers, a move forth, back and forth again'
	@echo '             ARGS="--switchovers 10" for more of them'
	@echo 'make chaos   every fault at every step of a switchover, on real servers; about an hour.'
	@echo '             ARGS="--help" lists how to try less, or at random'
	@echo 'make bench-copy'
	@echo '             the copy timed beside pglogical, pg_dump, native replication and pgcopydb'
	@echo '             (unpacked into target/pgcopydb); ARGS="--help" lists its options,'
	@echo '             benches/README.md says what it does'
	@echo 'make bench-switchover'
	@echo '             for how long a switchover holds writes, beside what scripts do by hand'
	@echo 'make bench-verify'
	@echo '             the comparison of both sides timed beside data-diff, reladiff and pgcopydb'
	@echo 'make soak    verify again and again under pgbench, TRUNCATE, keys that move and long'
	@echo '             transactions, for an hour or ARGS="--minutes 5": no false alarm may come'
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

majors: deps
	scripts/majors-tests.sh $(PAIRS) $(ARGS)

demo: deps
	$(CARGO) build --locked --release --workspace --bin pgferry --bin demo
	$${CARGO_TARGET_DIR:-target}/release/demo $(ARGS)

chaos: deps
	$(CARGO) run --locked -p pgferry-tests --bin chaos -- $(ARGS)

bench-copy:
	@benches/copy $(ARGS)

bench-switchover:
	@benches/switchover $(ARGS)

bench-verify:
	@benches/verify $(ARGS)

soak: deps
	$(CARGO) build --locked --release --workspace --bin pgferry --bin soak
	$${CARGO_TARGET_DIR:-target}/release/soak $(ARGS)

deny:
	$(CARGO) deny check bans licenses sources
