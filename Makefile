# What people and machines run. `make` alone lists it.

CARGO ?= cargo
.DEFAULT_GOAL := help
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= command data session
.PHONY: help demo test check bench micro instructions fuzz docs

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: ## Watch a gateway lose its first provider and get it back; needs no account
	$(CARGO) run --quiet -- demo

test: ## Install the peers that the tests talk to, when missing, and run every test
	tests/install.sh peers
	$(CARGO) test --workspace

# `--document-private-items`: the readers of these pages are the people who change the code, and
# every link in a private comment is checked as well.
check: ## Format, lints, licences, bans and documentation; changes nothing
	tests/install.sh checkers
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --all-targets --no-default-features -- -D warnings
	$(CARGO) deny check --hide-inclusion-graph bans licenses sources
	.ci/advisories
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

bench: ## Postrider and Postfix in turn on the same load: rate and CPU per message
	tests/install.sh peers
	benches/end_to_end.sh

micro: ## What parser, data reader, spool, claim and dispatch cost by themselves
	$(CARGO) bench --bench micro

instructions: ## Count the instructions that one message costs, and hold them to the budget
	tests/install.sh peers
	benches/instructions.sh

# What a run finds goes into `fuzz/work`, and from there only what adds coverage into `fuzz/corpus`,
# each file at most 1 KiB, so that the repository stays small. No sanitizer: there is no unsafe code.
fuzz: ## Fuzz each target for FUZZ_SECONDS (60); needs a nightly toolchain and cargo-fuzz
	@set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/work/$$target fuzz/corpus/$$target; \
		cargo +nightly fuzz run -s none $$target fuzz/work/$$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -dict=fuzz/smtp.dict -timeout=10; \
		cargo +nightly fuzz run -s none $$target fuzz/corpus/$$target fuzz/seeds/$$target fuzz/work/$$target -- \
			-set_cover_merge=1 -max_len=1024; \
	done

docs: ## Build the code's documentation and say where it is
	$(CARGO) doc --workspace --no-deps --document-private-items
	@echo "target/doc/postrider/index.html (or under CARGO_TARGET_DIR); start with docs/ARCHITECTURE.md"
