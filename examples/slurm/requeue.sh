#!/bin/bash
# A run longer than the time limit: the job is queued again until the run is over.
#   sbatch examples/slurm/requeue.sh digits.toml
#SBATCH --job-name=mlp
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK OPENBLAS_NUM_THREADS=$SLURM_CPUS_PER_TASK
srun mlp train "$1" --resume auto --out "runs/$SLURM_JOB_ID"
code=$?
# 138 = 128 + USR1: the limit was near, and the state is kept. Another number of ranks may go on.
[ "$code" -eq 138 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$code"
