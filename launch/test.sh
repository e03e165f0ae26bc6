#!/usr/bin/env bash
# Installs beit_jax into .venv and runs the tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/install.sh
exec .venv/bin/python -m pytest -n 2 --dist worksteal -q "$@"
