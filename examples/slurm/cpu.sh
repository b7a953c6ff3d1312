#!/bin/bash
# One net on CPU nodes: a rank a socket-sized share of cores, its products in as many threads.
#   sbatch examples/slurm/cpu.sh digits.toml
#SBATCH --job-name=mlp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK OPENBLAS_NUM_THREADS=$SLURM_CPUS_PER_TASK
# USR1 goes to the tasks of the step two minutes before the limit: the run ends after the batch
# under way and keeps its state; the same line goes on from there.
srun --cpu-bind=cores mlp train "$1" --resume auto
