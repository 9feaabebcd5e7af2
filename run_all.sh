#!/usr/bin/env bash
# The whole study in one command: set-up, then every stage into HTML reports.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # called as `sh run_all.sh`
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: ./run_all.sh [--profile smoke|demo|study|release|day|paper] [--data DIR] [--out DIR] [--jobs N]
                    [--set NAME=VALUE]... [--on slurm] [--anyway]
       ./run_all.sh lab     JupyterLab in the study's environment
       ./run_all.sh test    set-up, then the tests (further words go to pytest)

  --profile  smoke: minutes, only to see that it runs; demo (the default): the study in small;
             study: what the verdicts rest on, some hours;
             release: the networks that predict uses (python -m kitslib release); day: the real KiTS19 in a day on one GPU of 24 GB;
             paper: the paper's sizes and epochs, for a GPU and a week
  --data     folder of a KiTS19, KiTS21 or KiTS23 cohort (default: a synthetic cohort, made on the way)
  --out      folder for the reports and all that is made on the way (default: reports)
  --jobs     stages run at a time (default: the number of cores that this process may use)
  --gpus     GPUs to use, each for one stage at a time; 0: compute on the CPU
             (default: those that CUDA_VISIBLE_DEVICES names, without it all that nvidia-smi lists)
  --processes  how many train the cascade's kidney network together, each on a GPU or a core of its own (default: 1)
  --set      any setting of kitslib/config/sections.py, such as kidney.epochs=3; repeatable;
             such a study has a folder of its own, named after what differs
  --on       slurm: every stage is a job of the cluster that this is called on; see docs/cluster.md
  --anyway   start even where preflight finds that disk or memory will not do

Run inside an active virtual environment to use that one; otherwise .venv is made here.
TEXT
}

fail() { echo "run_all.sh: $1 (see ./run_all.sh --help)" >&2; exit 2; }
refuse() { echo "run_all.sh: $1" >&2; exit 1; }

started_in=$PWD self=${BASH_SOURCE[0]}
while [ -L "$self" ]; do  # readlink -f is not on every Mac
  target=$(readlink "$self")
  case "$target" in /*) self=$target ;; *) self=$(dirname "$self")/$target ;; esac
done
unset CDPATH
cd -- "$(dirname "$self")"
root=$(pwd -P)

command=study profile=demo data="" out="$root/reports" jobs="" gpus="" processes=1 on="" anyway="" rest=() settings=()
case "${1:-}" in
  lab|test) command=$1; shift; rest=("$@"); set -- ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h) usage; exit 0 ;;
    --anyway) anyway=yes; shift; continue ;;
    --profile|--data|--out|--jobs|--gpus|--processes|--on|--set) [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value" ;;
    *) fail "unknown argument '$1'" ;;
  esac
  case "$1" in
    --profile) profile=$2 ;;
    --data) data=$2 ;;
    --out) out=$2 ;;
    --jobs) jobs=$2 ;;
    --gpus) gpus=$2 ;;
    --processes) processes=$2 ;;
    --on) on=$2 ;;
    --set) settings+=(--set "$2") ;;
  esac
  shift 2
done
case "$profile" in smoke|demo|study|release|day|paper) ;; *) fail "--profile: '$profile' is not one of smoke, demo, study, release, day, paper" ;; esac
number() { case "$2" in [1-9]|[1-9][0-9]|[1-9][0-9][0-9]) ;; *) fail "$1: '$2' is not a number from 1 to 999" ;; esac; }
number --jobs "${jobs:-1}"
number --processes "$processes"
[ "$gpus" = 0 ] || number --gpus "${gpus:-1}"
case "$on" in ""|slurm) ;; *) fail "--on: '$on' is not slurm" ;; esac
absolute() { case "$1" in /*) echo "$1" ;; *) echo "$started_in/$1" ;; esac; }
if [ -n "$data" ]; then
  data=$(absolute "$data")
  [ -d "$data" ] || fail "--data: $data is not a folder"
fi
out=$(absolute "$out")

# What the study cannot run on is refused before anything is written.
case "$(uname -sm)" in
  MSYS*|MINGW*|CYGWIN*) refuse "the study does not run on native Windows; run it in WSL (Windows Subsystem for Linux)" ;;
  "Darwin x86_64") refuse "PyTorch has no build for Intel Macs any more; use a Mac with Apple silicon, or Linux" ;;
  Darwin*) echo "macOS: computed on the CPU in float32; the Mac's GPU (mps) and bf16 are not used" >&2 ;;
esac
command -v python3 >/dev/null || refuse "python3 is not on the PATH; install Python 3.11 or newer"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  refuse "$(python3 --version 2>&1) is too old; this study needs Python 3.11 or newer"
if [ -n "$on" ]; then
  command -v sbatch >/dev/null || refuse "--on slurm: sbatch is not on the PATH; call this where jobs are submitted"
  case "${VIRTUAL_ENV:-$root}" in *[[:space:]]*) refuse "--on slurm: no job can use the environment in '${VIRTUAL_ENV:-$root}'; move it to a path without spaces" ;; esac
fi

# The GPUs that this study may use; cards.sh gives each stage its own.
cards=() limit=()
if [ "${CUDA_VISIBLE_DEVICES--1}" != -1 ]; then
  IFS=, read -r -a cards <<<"$CUDA_VISIBLE_DEVICES"
elif [ -z "${CUDA_VISIBLE_DEVICES:-}" ] && command -v nvidia-smi >/dev/null; then
  cards=($(nvidia-smi -L 2>/dev/null | grep -o '^GPU [0-9]*' | cut -c 5- || true))
fi
[ "$gpus" != 0 ] || export CUDA_VISIBLE_DEVICES=""
gpus=${gpus:-${#cards[@]}}
[ "$gpus" -le "${#cards[@]}" ] || refuse "--gpus $gpus: ${#cards[@]} can be used (CUDA_VISIBLE_DEVICES, nvidia-smi -L)"
if [ "$gpus" -gt 0 ]; then
  [ -n "$on" ] || [ "$processes" -le "$gpus" ] || refuse "--processes $processes needs as many GPUs, $gpus can be used; or give --gpus 0"
  CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${cards[*]:0:$gpus}")
  limit=(--resources "gpu=$gpus")
  export CUDA_VISIBLE_DEVICES KITS_CARDS="$out/work/cards"
fi
export KITS_PROCESSES=$processes

# Holds a lock on a file while a command runs: a second call waits instead of writing into the first one's files.
with_lock() {
  python3 - "$@" <<'PYTHON'
import fcntl, os, sys

path, *command = sys.argv[1:]
handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print(f"another call is at work here ({path}); waiting for it to end", file=sys.stderr, flush=True)
    fcntl.flock(handle, fcntl.LOCK_EX)
os.set_inheritable(handle, True)
with open(os.devnull) as null:
    os.dup2(null.fileno(), 0)
os.execvp(command[0], command)
PYTHON
}

install() {
  local active="${VIRTUAL_ENV:-}" stamp log python
  export VIRTUAL_ENV="${active:-$root/.venv}"
  stamp="$VIRTUAL_ENV/.kitslib-stamp" log="$VIRTUAL_ENV/kitslib-install.log" python="$VIRTUAL_ENV/bin/python"
  if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted)" ]; then return; fi
  if [ -n "$active" ]; then
    [ -x "$python" ] || refuse "the active virtual environment $active is gone; call 'deactivate' or 'unset VIRTUAL_ENV' and start again"
    has_pip || refuse "$active has no pip, and 'python -m ensurepip' does not add it; install it there, or deactivate it"
  elif ! "$python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || ! has_pip; then  # none, or one that was left half made
    echo "making the virtual environment .venv"
    python3 -m venv "$VIRTUAL_ENV" --clear || refuse "python3 -m venv failed; install the venv module of your Python"
    has_pip || refuse "python3 -m venv made .venv without pip; install the venv module of your Python"
  fi
  echo "installing requirements.txt into $VIRTUAL_ENV (log: $log)"
  "$python" -m pip install --disable-pip-version-check --no-compile -r requirements.txt -c constraints.txt \
    >"$log" 2>&1 || { { grep ERROR: "$log" || tail -n 5 "$log"; } | tail -n 5 >&2; refuse "the installation failed"; }
  wanted >"$stamp"
}
has_pip() {
  "$python" -m pip --version >/dev/null 2>&1 || {
    "$python" -m ensurepip >/dev/null 2>&1 && "$python" -m pip --version >/dev/null 2>&1
  }
}
wanted() { cat requirements.txt constraints.txt pyproject.toml | cksum; echo "$root"; }

export root
# as words: a python3 that is a script of sh does not pass functions on
with_lock "$root/.install.lock" bash -euc "$(declare -f refuse has_pip wanted install); install"
export VIRTUAL_ENV="${VIRTUAL_ENV:-$root/.venv}"
unset PYTHONDONTWRITEBYTECODE  # dozens of processes import the same modules: compiled by the first, not by each
export PATH="$VIRTUAL_ENV/bin:$PATH"

# What others left in the environment decides nothing here: a launcher's ranks, a window for figures, another
# Python's kernel of the same name, a home folder that cannot be written.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT MPLBACKEND
unset PMI_SIZE OMPI_COMM_WORLD_SIZE MV2_COMM_WORLD_SIZE
export JUPYTER_PATH="$VIRTUAL_ENV/share/jupyter${JUPYTER_PATH:+:$JUPYTER_PATH}"
if ! mkdir -p "${HOME:-/dev/null}/.cache" 2>/dev/null || [ ! -w "$HOME/.cache" ]; then
  export HOME="$out/work/home" XDG_CACHE_HOME="$out/work/home/.cache"
  mkdir -p "$XDG_CACHE_HOME"
fi

case "$command" in
  lab) exec jupyter lab --notebook-dir="$root" ${rest[@]+"${rest[@]}"} ;;
  test) exec python -m pytest ${rest[@]+"${rest[@]}"} ;;
esac

if [ "$profile" = release ]; then  # its cases are made while it trains: no stages, no pages
  [ -z "$data$on" ] || fail "--profile release trains on cases of its own; leave --data and --on out"
  mkdir -p "$out/work"
  with_lock "$out/work/.lock" python -m kitslib release --out "$out" ${jobs:+--jobs "$jobs"} ${settings[@]+"${settings[@]}"}
  exit
fi
study=$(python -m kitslib study --profile "$profile" ${data:+--data "$data"} --out "$out" \
  ${settings[@]+"${settings[@]}"}) || exit 2
work="$study/work"
if [ ! -f "$study/summary.json" ] && [ -z "$on" ]; then  # before anything long starts
  python -m kitslib preflight ${data:+"$data"} --profile "$profile" --out "$out" ${jobs:+--jobs "$jobs"} \
    --json "$work/preflight.json" ${settings[@]+"${settings[@]}"} ||
    [ -n "$anyway" ] || { echo "run_all.sh: nothing was started; --anyway starts all the same" >&2; exit 1; }
fi
cores=$(python -c 'from kitslib.config import usable_cores; print(usable_cores())')
engine=(snakemake --cores "${jobs:-$cores}" ${limit[@]+"${limit[@]}"} --retries 1 --quiet all)
[ -z "$on" ] || engine=(bash slurm/run.sh "$work" "$anyway" ${jobs:+--jobs "$jobs"} --config on=slurm)
status=0
mkdir -p "$out/work/cards"
# studies of one folder share cohorts, cache and runs: one at a time
with_lock "$out/work/.lock" ${engine[@]+"${engine[@]}"} --snakefile "$root/Snakefile" --directory "$work" --nolock \
  --keep-going --rerun-incomplete --rerun-triggers mtime params input code --configfile "$work/study.json" || status=$?
if [ "$status" -eq 0 ]; then
  echo "reports: $study/index.html"
elif [ "$status" -ne 2 ]; then
  echo "some stages failed: their executed notebooks and logs are in $work/notebooks and $work/logs" >&2
fi
exit "$status"
