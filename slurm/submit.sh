#!/usr/bin/env bash
# slurm/submit.sh [sbatch flags] slurm/pretrain.sh experiment=... [section.key=value] ...
#
# sbatch, with the code and the resolved configuration copied into the run folder first: later edits do not change the job.
# A mistake in the configuration is refused here, instead of when the job's turn has come.
set -euo pipefail
flags=()
while [ $# -gt 0 ]; do
    case $1 in *.sh) script=$1; shift; break ;; *) flags+=("$1"); shift ;; esac
done
: "${script:?usage: slurm/submit.sh [sbatch flags] slurm/pretrain.sh experiment=...}"
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)
SNAPSHOT_FOLDER=$($python -m train.snapshot "$@")
export SNAPSHOT_FOLDER
echo "code and configuration: $SNAPSHOT_FOLDER"
exec sbatch "${flags[@]}" "$SNAPSHOT_FOLDER/slurm/$(basename "$script")" "$@"
