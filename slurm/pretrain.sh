#!/usr/bin/env bash
# sbatch --nodes 4 --gpus-per-node 8 slurm/pretrain.sh experiment=... [section.key=value] ...
#
# One torchrun per node, one rank per GPU (one in all where a node has none). Nodes, GPUs, time, partition and account are
# sbatch's own flags. `slurm/submit.sh --nodes 4 ... slurm/pretrain.sh experiment=...` does the same and copies the code and the
# configuration into the run folder at once; without it that is done when the job first starts.
#
# The job goes on by itself: 300 s before the time limit, when it is preempted and after `scontrol requeue` all ranks save
# a checkpoint, and it is queued again; after a crash it is queued again, too.
# `scancel` ends it for good, with a checkpoint if KillWait is long enough; `scancel --signal=USR1 JOB` has it saved and queued
# again, where another `scancel` ends it with nothing lost. Output: <run_dir>/slurm-JOB.out.
# EVAL="eval.perplexity source=held_out.txt" evaluates each checkpoint in a job of its own (slurm/eval.sh).
#SBATCH --job-name=layerskip
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?run this with sbatch}"
step= run_dir= signalled=
# Scontrol takes the number of an array's last task for the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} job=${job:-$SLURM_JOB_ID}

# A task of slurm/sweep.sh: its line has the folder of the snapshot, and the words that stand for those of the sweep.
if [ -n "${SWEEP_LINES:-}" ]; then
    eval "set -- $(sed -n "${SLURM_ARRAY_TASK_ID}p" "$SWEEP_LINES")"
    export SNAPSHOT_FOLDER=$1
    shift
fi

# A signal to this shell is passed on to the ranks by srun, again and again, because they may only be starting. Who is
# still there when the run has ended (a torchrun that waits for another) is killed: if srun itself is still there, since
# this loop can outlive the shell, and the job's name then stands for its next start.
pass_on() {
    signalled=yes
    while kill -USR1 $step 2>/dev/null; do
        sleep 5
        if [ ! -e "$run_dir/exit_status" ]; then continue; fi
        sleep 20
        if kill -0 $step 2>/dev/null; then scancel --quiet "$job.0" || true; fi
    done &
}
trap pass_on USR1 TERM

again() { # the job is queued again; not where Slurm does that itself, nor after scancel
    if scontrol show job "$job" | grep -qE 'JobState=RUNNING|Reason=TimeLimit'; then
        echo "job $job is queued again"
        scontrol requeue "$job"
        sleep 60 # until Slurm ends this shell
    fi
}

export RANKS_PER_NODE=${SLURM_GPUS_ON_NODE:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
if [ "$RANKS_PER_NODE" = 0 ]; then RANKS_PER_NODE=1; fi
source "${SNAPSHOT_FOLDER:-$PWD}/slurm/environment.sh"

# The configuration is checked (a mistake ends the job here, in one line), and the code copied unless it has been.
SNAPSHOT_FOLDER=$(SNAPSHOT=$(basename "${SNAPSHOT_FOLDER:-job-$job}") \
    WORLD_SIZE=$((SLURM_JOB_NUM_NODES * RANKS_PER_NODE)) $IN_CONTAINER python -m train.snapshot "$@")
run_dir=${SNAPSHOT_FOLDER%/code/*}
exec >>"$run_dir/slurm-$job.out" 2>&1
rm -f "$run_dir/exit_status"
export SNAPSHOT_FOLDER IN_CONTAINER

if [ -n "$signalled" ]; then again; exit 75; fi # before there was anything to pass it on to

# Where the ranks meet: on the first node, at a port of this job's own.
address() { scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'; }
export -f address
export MASTER="$(address "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"):$((12000 + SLURM_JOB_ID % 20000))"

# Torchrun ignores what is meant for the ranks, and ends when they have.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" bash -c '
    source "$SNAPSHOT_FOLDER/slurm/environment.sh"
    trap "" USR1 TERM
    exec $IN_CONTAINER torchrun \
        --nnodes "$SLURM_JOB_NUM_NODES" \
        --nproc-per-node "$RANKS_PER_NODE" \
        --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
        --rdzv-backend c10d \
        --rdzv-endpoint "$MASTER" \
        --rdzv-conf "is_host=$((SLURM_NODEID == 0))" \
        --local-addr "$(address "$SLURMD_NODENAME")" \
        --signals-to-handle SIGINT \
        --max-restarts "${MAX_RESTARTS:-0}" \
        -m train.pretrain "$@"' "$0" "$@" &
step=$!
evaluate() { if [ -n "${EVAL:-}" ]; then bash "$SNAPSHOT_FOLDER/slurm/evaluate_new.sh" "$run_dir" || true; fi; }
while sleep 60; do evaluate; done &
while kill -0 $step 2>/dev/null; do wait $step || true; done
evaluate

# 75: a signal ended it after a checkpoint. No status: it was killed, and is queued again unless that happens four times
# without a new checkpoint. Any other: it is finished, or a person has to look at it.
status=$(cat "$run_dir/exit_status" 2>/dev/null || echo killed)
newest=$(ls -t "$run_dir/checkpoint" 2>/dev/null | head -n 1 || true) # none yet is no error
if [ "$status" = killed ]; then
    echo "job $job was killed after $newest" >>"$run_dir/kills"
    if [ "$(tail -n 4 "$run_dir/kills" | grep -c "after $newest\$")" -lt 4 ]; then status=75; fi
fi
if [ "$status" = 75 ]; then again; fi
if [ "$status" = killed ]; then status=1; fi
exit "$status"
