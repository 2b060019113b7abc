#!/bin/bash
# Upscales a folder with one task for each shard:
#   sbatch slurm.sh INPUT OUTPUT [options of srup upscale]
# Tasks that failed, or did not finish in time, continue where they stopped: sbatch --array=3,7 slurm.sh ...
#SBATCH --job-name=srup
#SBATCH --array=1-16
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=srup-%A_%a.log
set -euo pipefail

# The number of tasks above. Not $SLURM_ARRAY_TASK_COUNT, which differs when some tasks are submitted again.
shards=16

input=${1:?name the folder of pictures}
output=${2:?name the folder of results}
shift 2
exec srup upscale "$input" -o "$output" --skip-existing --shard "$SLURM_ARRAY_TASK_ID/$shards" "$@"
