# Sourced by the other scripts: makes .venv with the exact tested set of packages.
# Installs again only when setup.py or the constraints have changed.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "beit_jax needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2
  exit 1
fi
stamp=$(cat "$root/setup.py" "$root/launch/constraints.txt" | cksum)
if [ "$(cat "$root/.venv/.installed" 2>/dev/null)" != "$stamp" ]; then
  echo "installing into $root/.venv (a few minutes)"
  "$python" -m venv "$root/.venv"
  "$root/.venv/bin/python" -m pip install -q --disable-pip-version-check \
    -c "$root/launch/constraints.txt" -e "$root[dev]"
  echo "$stamp" > "$root/.venv/.installed"
fi
