#!/bin/bash
# Re-runs the click log of a server with other weights, as a SLURM array:
#
#   sbatch --array=1-8 examples/slurm_replay.sh MODEL_DIR STUDIES OUT [options of replay]
#
# Each task takes the share that its number stands for; OUT must be a folder that all machines share. The task that ends
# last writes OUT/requests.csv and OUT/summary.json. An array that was cancelled continues with the same command.
#SBATCH --job-name=sam3d-replay
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: sbatch --array=1-N $0 MODEL_DIR STUDIES OUT [options of replay]" >&2; exit 2; }
model_dir=$1 studies=$2 out=$3
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
python -m sam3d_label replay "$model_dir" "$studies" "$out" "${@:4}"
