#!/usr/bin/env bash
# A run on a Slurm cluster, a process a GPU, requeued until it is complete:
#   sbatch --nodes=4 launch/slurm.sh --config C --workdir W
# From the root of the project, installed into .venv with `pip install -e '.[cuda]'`.
#SBATCH --job-name=beit_jax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the time is up all processes save and end with 75.
#SBATCH --signal=TERM@120
set -u
trap '' TERM # for the processes alone
# srun does not take over the number of cores by itself.
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-12}" \
  "${PYTHON:-.venv/bin/python}" -m beit_jax.train --multihost "$@"
code=$?
if ((code == 75)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
