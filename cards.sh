# Sourced by a stage (". cards.sh N"): waits for N GPUs that no other stage has, and makes them the only ones it sees.
# KITS_CARDS is the folder of their locks, CUDA_VISIBLE_DEVICES names those that may be used; without the folder, as
# under a scheduler that hands out GPUs itself, nothing is done. A lock is that of the open file, which the processes
# of a stage inherit: however they end, the last of them gives it back.
if [ -n "${KITS_CARDS:-}" ]; then
  mine=() all=${CUDA_VISIBLE_DEVICES//,/ }
  until [ "${#mine[@]}" -ge "$1" ]; do
    for card in $all; do
      exec {lock}>>"$KITS_CARDS/${card//\//_}"
      if flock -n "$lock"; then mine+=("$card"); continue 2; fi
      exec {lock}>&-
    done
    [ -n "${waits:-}" ] || echo "waiting for a GPU: all of $all are taken (locks in $KITS_CARDS)" >&2
    waits=yes
    sleep 0.5
  done
  CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${mine[*]}")
  export CUDA_VISIBLE_DEVICES
fi
