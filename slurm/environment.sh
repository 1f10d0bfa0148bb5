# The one place for what a site sets: sourced by every job of slurm/, on each node, before Python starts.

# 1. Where Python is. What the job inherits from the shell that submits it is there already (conda, module load). Else:
#      module load cuda/12.8
#      source ~/miniconda3/bin/activate layerskip
#    A container instead: sbatch --container-image=... (Pyxis), or Apptainer: IN_CONTAINER="apptainer exec --nv image.sif"
if [ -f "$SLURM_SUBMIT_DIR/.venv/bin/activate" ]; then source "$SLURM_SUBMIT_DIR/.venv/bin/activate"; fi
IN_CONTAINER=${IN_CONTAINER:-}

# 2. Code: the snapshot in the run folder before the folder in which the job was submitted, where functions of your own are.
if [ -n "${SNAPSHOT_FOLDER:-}" ]; then
    export PYTHONPATH=$SNAPSHOT_FOLDER:$SLURM_SUBMIT_DIR${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
fi

# 3. CUDA and NCCL. The number of kept rows changes at each step: with fixed segments the allocator would fragment.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
#   The network between the nodes, where NCCL and Gloo choose the wrong one:
#     export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0 NCCL_IB_HCA=mlx5

# 4. CPU threads: a node's cores, shared by its ranks.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((SLURM_CPUS_ON_NODE + RANKS_PER_NODE - 1) / RANKS_PER_NODE))}
