# For those who change tunnelform; `make` alone lists the targets. To use it, `cargo build --release` is enough.

CARGO ?= cargo
# Cargo reads CARGO_TARGET_DIR by itself.
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/tunnelform
# tests/hooks looks for it there.
VENV := $(TARGET)/venv
# What `make bench` holds tunnelform against, and what it writes. BENCH_MAX=1000 is a quick run: the most tunnels; the most
# routes are a hundred times as many. benches/README.md says more.
PEERS := $(TARGET)/bench-peers
BENCH_MAX ?= 10000
# What `make release` builds, with a profile of the program's own runs. llvm-profdata, which makes that, has to be of rustc's
# LLVM.
COUNTING := $(abspath $(TARGET))/counting
PROFILED := $(TARGET)/profiled
LLVM = $(shell rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

# user-mode-linux and kmod are for tests/with-ipip, where the machine's own kernel has no ipip; util-linux has unshare
# and setpriv; cargo links with cc.
PACKAGES := user-mode-linux kmod iproute2 iputils-ping util-linux \
	$(if $(shell command -v cc),,gcc libc6-dev)
# strace kills tunnelform at a chosen system call, valgrind counts; the others run the examples in tests/hooks.
TEST_PACKAGES := strace valgrind jq python3-venv shellcheck systemd \
	$(if $(shell command -v git),,git)
# KERNEL=6.12, or 6.1, for demo, kernel and bench: Debian's kernel of that version with two processors, under QEMU.
ifdef KERNEL
export TUNNELFORM_QEMU := $(abspath $(TARGET))/kernels/$(KERNEL)
PACKAGES += qemu-system-x86 busybox-static xz-utils
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup packages test-packages booted build release profile demo test kernel bench bench-packages peers components fmt clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: packages test-packages $(VENV)/stamp ## install the Debian packages that tests and demo need, if any is missing, and Python's
packages: ; @$(call install,$(PACKAGES))
test-packages: ; @$(call install,$(TEST_PACKAGES))
# What with-ipip boots.
booted: packages ; $(if $(KERNEL),@tests/fetch-kernel $(KERNEL) $(TUNNELFORM_QEMU))

define install
missing=; \
for package in $(1); do \
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
endef

# The system's own Python, to which python3-venv belongs. What is half made isn't kept: the stamp comes last.
$(VENV)/stamp: tests/requirements.txt | test-packages
	@echo "setup: $(VENV) with what tests/requirements.txt lists"
	@rm -rf $(VENV)
	@/usr/bin/python3 -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

build: ## build the release binary
	$(CARGO) build --release --locked

release: profile ## build the release binary with a profile of its own runs: the same program, faster; 15 minutes
	RUSTFLAGS="$$RUSTFLAGS -Cprofile-use=$(COUNTING)/profile" $(CARGO) build --release --locked --target-dir $(PROFILED)
	@echo $(PROFILED)/release/tunnelform

profile: booted
	@[ -x "$$(rustc --print target-libdir)/../bin/llvm-profdata" ] || { $(call install,llvm-$(LLVM)); } || true
	@CARGO=$(CARGO) benches/profile $(COUNTING)

demo: booted build ## run examples/demo.sh on a kernel that has ipip, away from this machine's own network
	tests/with-ipip examples/demo.sh $(BINARY)

test: setup components ## all that CI checks: format, lints, tests (on a real kernel, too), documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) test --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked

kernel: booted ## the tests on a real kernel alone; FILTER=drift for some of them, KERNEL=6.12 for a kernel of two processors
	$(CARGO) test --locked --test kernel -- $(FILTER)

bench: booted bench-packages peers ## tunnelform beside ip, ifstate and ifupdown2, on one kernel; BENCH_MAX=1000 for less
	@if $(MAKE) --no-print-directory release; then export BENCH_TUNNELFORM=$(abspath $(PROFILED))/release/tunnelform; \
	else echo "bench: WITHOUT a profile" >&2; fi; \
	export BENCH_MAX=$(BENCH_MAX) BENCH_ONLY='$(BENCH_ONLY)' BENCH_PEERS=$(abspath $(PEERS)) BENCH_RESULTS=$(abspath $(TARGET))/bench$(KERNEL:%=-%) \
	TUNNELFORM_KERNEL_TIMEOUT=$${TUNNELFORM_KERNEL_TIMEOUT:-5400} TUNNELFORM_KERNEL_MEM=$${TUNNELFORM_KERNEL_MEM:-4096M}; \
	$(CARGO) bench --locked --bench side_by_side

bench-packages: ; @$(call install,strace python3-venv)

# Who can't be had is left out, and the benchmark says so.
peers: bench-packages
	@benches/fetch-peers $(PEERS) || true

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
