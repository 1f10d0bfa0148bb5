#!/usr/bin/env bash
# sbatch --nodes 4 --gpus-per-node 8 slurm/pretrain.sh experiment=... [section.key=value] ...
#
# One torchrun per node, one rank per GPU (one rank where there is none). Submitted again, or requeued, with the same
# arguments it continues from the last checkpoint.
#SBATCH --job-name=layerskip
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?run this with sbatch}"
[ -d .venv ] && source .venv/bin/activate

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head_node:${MASTER_PORT:-29500}" \
    -m train.pretrain "$@"
