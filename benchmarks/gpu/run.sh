#!/usr/bin/env bash
# What needs a CUDA device, in one go: results as JSON under $OUT as soon as they are there.
#   OUT=FOLDER benchmarks/gpu/run.sh DATA [option of benchmarks.gpu.train ...]
# DATA is a data set of small images of one size, as trpexport train takes it. SPEED_SECONDS limit
# the first part, TOTAL_SECONDS all of it; SMALL=1 tries everything on the processor.
set -u
data=$1
shift
python=${PYTHON:-python3}
# Always the same place, so that a run that is resumed finds the data where they were.
work=${TMPDIR:-/tmp}/trpexport-gpu images=$work/images.npz
mkdir -p "$work"
# An installed trpexport goes first, the benchmarks are those of the working directory.
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD"
exec > >(tee -a "${OUT:?}/log.txt") 2>&1
small=() limit=() device=cuda
[ "${SMALL:-}" ] && small=(--small) limit=(--limit 256) device=cpu

[ "$device" = cuda ] && nvidia-smi
[ "$device" = cuda ] && timeout 60 "$python" -m pytest -q -p no:cacheprovider -o pythonpath= tests/training/test_cuda.py
time "$python" -m benchmarks.gpu.decode "$data" "$images" "${limit[@]}" &
decoding=$!
"$python" -m benchmarks.gpu.speed --out "$OUT/speed.json" --device "$device" \
  --seconds "${SPEED_SECONDS:-90}" "${small[@]}"
wait "$decoding" || exit

# Several processes share a card well only through its multi-process service.
if [ "$device" = cuda ] && command -v nvidia-cuda-mps-control; then
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
"$python" -m benchmarks.gpu.train --data "npz:$images" --out "$OUT" --runs "$work/runs" \
  --device "$device" --seconds "$((${TOTAL_SECONDS:-465} - SECONDS))" "$@"
