#!/usr/bin/env bash
# A run on all hosts of a Cloud TPU slice, started anew when a signal has stopped it:
#   TPU_NAME=N ZONE=Z ./launch/tpu_pod.sh --config C --workdir /mnt/shared/W
# Copies what is committed here to ~/beit_jax of each host, installs it there, and runs
# it until it ends; where the slice itself is taken away, give the same command again. The work directory must be one that all hosts see: an NFS, or a
# bucket that is mounted on each (gcsfuse).
set -euo pipefail
: "${TPU_NAME:?the name of the slice}" "${ZONE:?the zone of the slice}"
cd "$(dirname "$0")/.."
tpu=(gcloud compute tpus tpu-vm)
where=("$TPU_NAME" --zone="$ZONE" --worker=all)
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
"${tpu[@]}" scp "$archive" "$TPU_NAME:beit_jax.tar.gz" --zone="$ZONE" --worker=all
"${tpu[@]}" ssh "${where[@]}" --command='
  mkdir -p beit_jax && tar xzf beit_jax.tar.gz -C beit_jax && cd beit_jax &&
  python3 -m venv .venv &&
  .venv/bin/python -m pip install -q -c launch/constraints.txt -e ".[tpu]"'
"${tpu[@]}" ssh "${where[@]}" --command="cd beit_jax && ./launch/again.sh \
  .venv/bin/python -m beit_jax.train --multihost ${*@Q}"
