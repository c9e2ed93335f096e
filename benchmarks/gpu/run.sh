#!/usr/bin/env bash
# What needs a CUDA device, in one go: results as JSON under $OUT as soon as they are there.
#   OUT=FOLDER benchmarks/gpu/run.sh DATA [option of benchmarks.gpu.train ...]
# DATA is a data set of small images of one size, as trpexport train takes it. PARTS names what is
# run, of tests, speed, runtime, calibration and training. Each has a limit of its own, one that
# fails does not stop the others, and training has what is left of TOTAL_SECONDS. A later run goes
# on with the training: PARTS=training ... DATA --resume FOLDER, the OUT of the one before. MODELS
# are networks to calibrate besides, as package.module:factory. SMALL=1 tries everything on the
# processor.
set -u
data=$1
shift
python=${PYTHON:-python3} total=${TOTAL_SECONDS:-465} failed=()
# Always the same place, so that a run that is resumed finds the data where they were.
work=${TMPDIR:-/tmp}/trpexport-gpu
images=$work/images.npz
mkdir -p "$work" "${OUT:?}"
# An installed trpexport goes first, the benchmarks are those of the working directory.
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD"
exec > >(tee -a "$OUT/log.txt") 2>&1
small=() few=() device=cuda providers=(cuda tensorrt)
[ "${SMALL:-}" ] && small=(--small) few=(--limit 256) device=cpu providers=(cpu)

is_wanted() { [[ " ${PARTS:-tests speed runtime calibration training} " == *" $1 "* ]]; }

# Run a part if it is wanted, for as many seconds at most, and no longer than all may take.
part() {
  local name=$1 seconds=$2 left=$((total - SECONDS))
  shift 2
  [ "$device" = cpu ] && seconds=$total
  is_wanted "$name" || return 0
  echo "== $name, $left s are left"
  [ "$left" -gt 0 ] && timeout -k 5 "$((seconds < left ? seconds : left))" "$@" && return 0
  echo "== $name failed or ran out of time: $?"
  failed+=("$name")
}

decoding=
if is_wanted calibration || is_wanted training; then
  time "$python" -m benchmarks.gpu.decode "$data" "$images" "${few[@]}" &
  decoding=$!
fi

if [ "$device" = cuda ]; then
  nvidia-smi
  part tests 60 "$python" -m pytest -q -p no:cacheprovider -o pythonpath= tests/training/test_cuda.py
fi
part speed 75 "$python" -m benchmarks.gpu.speed --out "$OUT/speed.json" --device "$device" \
  --seconds "${SPEED_SECONDS:-50}" "${small[@]}"
part runtime 90 "$python" -m benchmarks.gpu.runtime --out "$OUT/runtime.json" \
  --providers "${providers[@]}" --seconds "${RUNTIME_SECONDS:-50}" "${small[@]}"
[ "$decoding" ] && ! wait "$decoding" && failed+=(decoding)
part calibration 110 "$python" -m benchmarks.gpu.calibration --data "npz:$images" \
  --out "$OUT/calibration.json" --devices "$device" --seconds "${CALIBRATION_SECONDS:-60}" \
  --models ${MODELS:-} "${small[@]}"

# Several processes share a card well only through its multi-process service.
if is_wanted training && [ "$device" = cuda ] && command -v nvidia-cuda-mps-control; then
  export CUDA_MPS_PIPE_DIRECTORY=$work/mps CUDA_MPS_LOG_DIRECTORY=$work/mps
  mkdir -p "$work/mps"
  timeout 10 nvidia-cuda-mps-control -d
  if timeout 40 "$python" -c 'import torch; print(torch.zeros(1, device="cuda"))'; then
    echo "the multi-process service answers"
    trap 'echo quit | timeout 10 nvidia-cuda-mps-control' EXIT
  else
    echo "no multi-process service"
    echo quit | timeout 10 nvidia-cuda-mps-control
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  fi
fi
# It packs what it goes on from before its seconds are over: the limit above is for what hangs.
part training "$total" "$python" -m benchmarks.gpu.train --data "npz:$images" --out "$OUT" \
  --runs "$work/runs" --device "$device" --seconds "$((total - SECONDS - 15))" "$@"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
