#!/usr/bin/env bash
# sbatch --gpus-per-node 8 slurm/finetune.sh experiment=topv2_1_5b checkpoint.initial=outputs/... [section.key=value] ...
#
# Training that starts from a run, a checkpoint or a Hugging Face folder (checkpoint.initial); in all else as pretrain.sh.
#SBATCH --job-name=layerskip-finetune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
case " $* " in *" checkpoint.initial="*) ;; *) echo "error: checkpoint.initial=...: missing; what to start from" >&2; exit 2 ;; esac
source "${SNAPSHOT_FOLDER:-${SLURM_SUBMIT_DIR:?run this with sbatch}}/slurm/pretrain.sh"
