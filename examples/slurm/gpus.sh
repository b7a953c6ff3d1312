#!/bin/bash
# One net on the four GPUs of a node: a rank each, added up by NCCL where CuPy has it.
#   sbatch examples/slurm/gpus.sh digits.toml
#SBATCH --job-name=mlp
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120

# All ranks see all four devices, and each takes the one of its number on the node.
srun --gpu-bind=none mlp train "$1" --backend cupy --resume auto
