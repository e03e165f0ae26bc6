#!/usr/bin/env bash
# Starts N processes of a command on this machine, which work as one:
#   ./launch/local.sh N python -m beit_jax.train --config C --workdir W
# Each has its own device: the CPU's, or the GPU of its number. Their lines begin with
# their numbers. SIGTERM, SIGINT and SIGHUP go to all. Once one has ended badly, the
# others have 15 s to say why they end, too; its exit code is that of the whole.
set -u
if ! [[ ${1-} =~ ^[1-9][0-9]*$ ]] || (($# < 2)); then
  echo "usage: $0 N COMMAND..." >&2
  exit 64
fi
n=$1
shift
port=$((20000 + RANDOM % 10000))
while (: <>"/dev/tcp/localhost/$port") 2>/dev/null; do ((port++)); done

number() { # a terminal's Ctrl-C comes here too: nothing is cut off by it
  trap '' TERM INT HUP
  exec sed -u "s/^/[$1] /"
}

pids=()
for ((i = 0; i < n; i++)); do
  BEIT_JAX_COORDINATOR=localhost:$port BEIT_JAX_PROCESSES=$n BEIT_JAX_PROCESS=$i \
    JAX_LOCAL_DEVICE_IDS=$i "$@" > >(number $i) 2> >(number $i >&2) &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT HUP

code=0
for ((left = n; left > 0; )); do
  done=
  wait -n -p done "${pids[@]}"
  ended=$?
  [[ -n $done ]] || continue # but a signal
  ((left--))
  for i in "${!pids[@]}"; do
    if [[ ${pids[i]} == "$done" ]]; then
      number=$i
      unset "pids[i]"
    fi
  done
  if ((ended && !code)); then
    code=$ended
    echo "process $number has ended with exit code $code: 15 s for the others" >&2
    (sleep 15 && kill -KILL "${pids[@]}") >/dev/null 2>&1 &
    killer=$!
  fi
done
[[ -z ${killer-} ]] || kill "$killer" 2>/dev/null
exit "$code"
