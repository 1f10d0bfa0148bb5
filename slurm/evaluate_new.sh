#!/usr/bin/env bash
# evaluate_new.sh RUN_DIR: submits slurm/eval.sh with $EVAL for each checkpoint that has not been submitted yet. The jobs wait
# for one another, so that their results come in order. Called by pretrain.sh.
set -euo pipefail
run_dir=$1 list=$1/evaluations/submitted
mkdir -p "$run_dir/evaluations" && touch "$list"
for path in $(find "$run_dir/checkpoint" -path '*/step-*/.metadata' 2>/dev/null | sort -V); do
    checkpoint=$(dirname "$path")
    case $(basename "$checkpoint") in step-0 | *.*) continue ;; esac # the start; being written, deleted or set aside
    if grep -q "^$checkpoint " "$list"; then continue; fi
    after=$(tail -n 1 "$list" | cut -d " " -f 2)
    # shellcheck disable=SC2086 # words
    job=$(sbatch --parsable ${after:+--dependency=afterany:$after} ${EVAL_SBATCH:-} "$(dirname "$0")/eval.sh" "$checkpoint" $EVAL)
    echo "$checkpoint $job" >>"$list"
done
