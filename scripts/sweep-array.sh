#!/usr/bin/env bash
# A sweep as a Slurm array. sbatch --array=1-16 scripts/sweep-array.sh grid.toml results
#SBATCH --job-name=steptime-sweep
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
set -euo pipefail
scenario=$1
out=$2
steptime sweep "$scenario" --out "$out" --shard auto --jobs "${SLURM_CPUS_PER_TASK:-1}" --quiet
# When all tasks have ended: steptime merge "$out" --out "$out"
