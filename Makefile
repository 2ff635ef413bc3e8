# What people and machines run. `make` alone lists it.

CARGO ?= cargo
.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

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

docs: ## Build the code's documentation and say where it is
	$(CARGO) doc --workspace --no-deps --document-private-items
	@echo "target/doc/postrider/index.html (or under CARGO_TARGET_DIR); start with docs/ARCHITECTURE.md"
