#!/usr/bin/env bash
# Installs what the tests need and this machine lacks, then runs the whole suite.
# Arguments go to `cargo test`: `scripts/test.sh -p leviathan-model`.
set -euo pipefail
cd "$(dirname "$0")/.."

# command → Debian package that brings it
needed=(
  "git git"
  "cc gcc"
  "python3 python3"
  "pytest-3 python3-pytest"
  "bwrap bubblewrap"
)

missing=()
for entry in "${needed[@]}"; do
  read -r command package <<<"$entry"
  command -v "$command" >/dev/null 2>&1 || missing+=("$package")
done

# Debian keeps the server's programs off the PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null 2>&1 || missing+=(postgresql)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if ((${#missing[@]})); then
  if ((EUID == 0)); then
    sudo=()
  elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo=(sudo)
  else
    echo "The tests need packages that are not installed: ${missing[*]}" >&2
    echo "Install them (as root: apt-get install ${missing[*]}) and run this again." >&2
    exit 1
  fi
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "The tests need a Rust toolchain (1.95 or newer); see https://rustup.rs" >&2
  exit 1
fi

# What proves the Kubernetes manifests.
scripts/kubernetes-tools.sh

# The stories drive the built programs, so these come first.
cargo build --workspace --bins --locked
exec cargo test --workspace --locked --no-fail-fast "$@"
