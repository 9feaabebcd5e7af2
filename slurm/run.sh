#!/usr/bin/env bash
# Called by run_all.sh --on slurm while it holds the lock of --out: slurm/run.sh WORK ANYWAY ARGUMENTS
# WORK is the study's folder work, ANYWAY is empty or not, ARGUMENTS are Snakemake's.
set -euo pipefail
work=$1 anyway=$2
shift 2
here=$(dirname "${BASH_SOURCE[0]}") log="$work/logs/preflight.log"
unset CUDA_VISIBLE_DEVICES KITS_CARDS  # of the machine that this is called on
prefix="kits-$(cksum <<<"$work" | cut -d ' ' -f 1)_"  # of the names of this study's jobs

engine() {
  snakemake "$@" --profile "$here/profile.yaml" ${SNAKEMAKE_PROFILE:+--profile "$SNAKEMAKE_PROFILE"} \
    --slurm-jobname-prefix "${prefix%_}"
}
refuse() { echo "run_all.sh: $1" >&2; exit 2; }

# jobs that a killed call left in the queue would write beside those of this one
queue=$(squeue --user "$(id -un)" --noheader --format '%i %j') || refuse "Slurm does not answer"
while read -r id name; do
  case "$name" in "$prefix"*) scancel "$id" ;; esac
done <<<"$queue"

engine preflight "$@" --quiet all ||
  refuse "preflight did not run as a job (its log: $log); on a cluster without GPUs add --set device=cpu"
if [ ! -f "$work/../summary.json" ]; then
  cat "$log"
  ! grep -q '^does not fit' "$log" || [ -n "$anyway" ] || refuse "such a node will not do; --anyway starts all the same"
fi
engine "$@"
