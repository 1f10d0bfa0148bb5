#!/usr/bin/env bash
# sbatch --gpus-per-node 1 slurm/eval.sh CHECKPOINT COMMAND [key=value] ...
# sbatch slurm/eval.sh outputs/run/checkpoint/step-1000 eval.perplexity source=held_out.txt
#
# One of our eval commands on a checkpoint of a run. The results lie in <run_dir>/evaluations and go to the W&B run of the
# training, as eval/... over eval/step. EVAL="COMMAND [key=value] ..." before `sbatch slurm/pretrain.sh` (or finetune.sh) submits
# this for each checkpoint; EVAL_SBATCH="--partition=... --gpus-per-node=1" are sbatch's flags for it.
#SBATCH --job-name=layerskip-eval
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --output=slurm-%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?run this with sbatch}"
checkpoint=$(realpath "$1") command=$2
shift 2
run_dir=${checkpoint%/checkpoint/*} step=${checkpoint##*step-}
export RANKS_PER_NODE=1
source "${SNAPSHOT_FOLDER:-$PWD}/slurm/environment.sh"
mkdir -p "$run_dir/evaluations"
exec >>"$run_dir/evaluations/slurm-$SLURM_JOB_ID.out" 2>&1
if [ ! -d "$checkpoint" ]; then echo "$checkpoint was deleted before its turn (checkpoint.keep)"; exit 0; fi
result=$run_dir/evaluations/$command-step-$step.json
$IN_CONTAINER python -m "$command" checkpoint="$checkpoint" output="$result" "$@"
cp "$result" "$run_dir/evaluations/$command.json" # the same name at each step: the same curve in W&B
$IN_CONTAINER python -m train.log_evaluation "$run_dir" "$step" "$run_dir/evaluations/$command.json"
