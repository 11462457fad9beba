#!/bin/bash
# Measures weights on labelled volumes, as a SLURM array, and joins the tables:
#
#   sbatch --array=0-7 examples/slurm_evaluate.sh IMAGES LABELS OUT [options of evaluate]
#
# Task N of T takes every T-th volume. Each writes OUT/array-JOB/part-N; the one that ends last joins them in
# OUT/cases.csv, which has a row for each case and number of clicks. An array that was cancelled starts again with the
# same command; parts of another array, of whatever size, are not joined with its own.
#SBATCH --job-name=sam3d-evaluate
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: sbatch --array=0-N $0 IMAGES LABELS OUT [options of evaluate]" >&2; exit 2; }
images=$1 labels=$2 out=$3
first=${SLURM_ARRAY_TASK_MIN:-0}
task=$((${SLURM_ARRAY_TASK_ID:-0} - first)) tasks=${SLURM_ARRAY_TASK_COUNT:-1}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

parts=$out/array-${SLURM_ARRAY_JOB_ID:-of-$tasks}
mkdir -p "$parts"
rm -rf "$parts/done-$task" "$parts/part-$task"
cases=$(cd "$images" && printf '%s\n' * | sort | awk -v n="$tasks" -v i="$task" '(NR - 1) % n == i' | paste -sd,)
if [ -n "$cases" ]; then
    python -m sam3d_label evaluate "$images" "$labels" "$parts/part-$task" --cases "$cases" --overwrite "${@:4}"
fi
touch "$parts/done-$task"

(
    flock 9
    [ "$(find "$parts" -maxdepth 1 -name 'done-*' | wc -l)" -eq "$tasks" ] || exit 0
    awk 'FNR > 1 || NR == 1' "$parts"/part-*/cases.csv >"$out/cases.csv.part"
    mv "$out/cases.csv.part" "$out/cases.csv"
) 9>"$out/lock"
