#!/usr/bin/env bash
# Starts a command anew for as long as it ends with 75, "stopped; the same goes on":
#   ./launch/again.sh python -m beit_jax.train --config C --workdir W
# A signal goes to the command; what it ends with then is the end.
set -u
stop=
trap 'stop=1; kill -TERM "$pid" 2>/dev/null' TERM INT HUP
while true; do
  "$@" &
  pid=$!
  wait "$pid"
  code=$?
  while kill -0 "$pid" 2>/dev/null; do # a signal has ended the wait, not the command
    wait "$pid"
    code=$?
  done
  [[ $code == 75 && -z $stop ]] || exit "$code"
  sleep 1
done
