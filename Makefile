# For those who change tunnelform; `make` alone lists the targets. To use it, `cargo build --release` is enough.

CARGO ?= cargo
# Cargo reads CARGO_TARGET_DIR by itself.
BINARY := $(or $(CARGO_TARGET_DIR),target)/release/tunnelform

# user-mode-linux and kmod are for tests/with-ipip, where the machine's own kernel has no ipip; strace kills tunnelform
# at a chosen system call; util-linux has unshare and setpriv; cargo links with cc.
PACKAGES := user-mode-linux kmod iproute2 iputils-ping strace util-linux \
	$(if $(shell command -v cc),,gcc libc6-dev)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build demo test components fmt clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: ## install the Debian packages that tests and demo need, if any is missing
	@missing=; \
	for package in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}\n' $$package 2>/dev/null | grep -qx installed || \
			missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	install="apt-get install -y --no-install-recommends$$missing"; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "setup: missing Debian packages, which this command installs:" >&2; \
		echo "    sudo $$install" >&2; \
		exit 1; \
	fi; \
	echo "setup: $$install"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update >/dev/null && $$install >/dev/null

build: ## build the release binary
	$(CARGO) build --release --locked

demo: setup build ## run examples/demo.sh on a kernel that has ipip, away from this machine's own network
	tests/with-ipip examples/demo.sh $(BINARY)

test: setup components ## all that CI checks: format, lints, tests (on a real kernel, too), documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) test --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked

components:
	@for component in fmt clippy; do \
		$(CARGO) $$component --version >/dev/null 2>&1 && continue; \
		echo "cargo $$component doesn't run here. With rustup: rustup component add rustfmt clippy" >&2; \
		exit 1; \
	done

fmt: ## format the code
	$(CARGO) fmt --all

clean: ## remove what cargo has built
	$(CARGO) clean
