#!/usr/bin/env bash
# slurm/sweep.sh [sbatch flags] slurm/pretrain.sh experiment=... train.seed=0,1 early_exit=none,rotational ...
#
# --multirun as an array of jobs: every combination of the listed values is a task with a run folder of its own. All
# configurations are checked first, and each run folder gets its copy of the code, as slurm/submit.sh makes it.
# AT_A_TIME=4 before the command: no more than so many tasks run at once.
# The same command again goes on with the runs that are not finished. Figures of all: python -m eval.figures 'runs=[RUN_DIR]'
set -euo pipefail
flags=()
while [ $# -gt 0 ]; do
    case $1 in *.sh) script=$1; shift; break ;; *) flags+=("$1"); shift ;; esac
done
: "${script:?usage: slurm/sweep.sh [sbatch flags] slurm/pretrain.sh experiment=... train.seed=0,1}"
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)
listed=$($python -m train.pretrain --jobs "$@")
mkdir -p outputs/sweeps
SWEEP_LINES=$(realpath "$(mktemp "outputs/sweeps/$(date +%Y-%m-%d-%H%M%S)-XXXX")")
while IFS= read -r words; do
    eval "set_of_words=($words)"
    snapshot=$($python -m train.snapshot "${set_of_words[@]}")
    printf '%q %s\n' "$snapshot" "$words" >>"$SWEEP_LINES"
done <<<"$listed"
export SWEEP_LINES
n=$(wc -l <"$SWEEP_LINES")
echo "$n runs, a line each: $SWEEP_LINES"
exec sbatch --array="1-$n${AT_A_TIME:+%$AT_A_TIME}" "${flags[@]}" "$snapshot/slurm/$(basename "$script")" "$@"
