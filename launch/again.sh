#!/usr/bin/env bash
# Starts a command anew for as long as it ends with 75, "stopped; the same goes on":
#   ./launch/again.sh python -m beit_jax.train --config C --workdir W
# A signal to this goes to the command, and what it ends with then is the end.
set -u
pid= stop= told=
trap 'stop=1 told=1; [[ -z $pid ]] || kill -TERM "$pid" 2>/dev/null' TERM INT HUP
while true; do
  "$@" &
  pid=$!
  [[ -z $stop ]] || kill -TERM "$pid" # it came before there was anybody to tell
  code=127
  while true; do
    told=
    wait "$pid"
    now=$?
    ((now == 127)) || code=$now # 127: its end was told before
    [[ -n $told ]] || break # a signal ends a wait, not the command
  done
  pid=
  [[ $code == 75 && -z $stop ]] && sleep 1
  [[ $code == 75 && -z $stop ]] || exit "$code"
done
