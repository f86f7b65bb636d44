# What one can do here. Every target runs in a fresh clone; the toolchain is stable Rust, at least
# Cargo.toml's rust-version.
.DEFAULT_GOAL := help
.PHONY: help demo test soak istio fuzz bench lint peers image-root

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a mesh in miniature, scraped: what is delivered, what is refused and why
	cargo run --locked -- demo

test: peers ## every test, against real Envoy, Prometheus, VictoriaMetrics and a Kubernetes API server
	@tests/peers.sh test cargo test --locked

soak: peers ## the integration tests, optimised and at full length
	@MESHSCRAPE_SOAK=1 tests/peers.sh test cargo test --locked --release --test it

istio: ## getting started and the patches, followed on a live cluster with Istio; as root, not part of `make test`
	@tests/istio/run.sh

fuzz: ## everything that reads what others wrote, with made-up input: each reader for TIME=60 seconds
	@tests/fuzz.sh run $(or $(TIME),60)

bench: ## how fast the parts are
	cargo bench --locked

lint: ## format, clippy, docs, and what may come into the build
	@tests/peers.sh install cargo-deny
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	"$$(tests/peers.sh find cargo-deny)" --locked check licenses bans sources
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items

peers: ## brings the real programs that the tests run against into target/peers
	@tests/peers.sh install

image-root: ## the content of the image, in target/image-root
	deploy/image/root.sh target/image-root --release --no-default-features
