#!/usr/bin/env bash
# Installs beit_jax into .venv and runs the whole chain on images that come with it:
#   ./launch/quickstart.sh [--data DIR] [--workdir DIR]
# Stopped and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
from=$PWD
source "$here/launch/install.sh"
cd "$from"
exec "$here/.venv/bin/python" "$here/launch/quickstart.py" "$@"
