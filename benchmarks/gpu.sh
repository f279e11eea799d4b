#!/usr/bin/env bash
# All that the CUDA path must show on one card, in one call of under 8 minutes.
#
#     bash benchmarks/gpu.sh [file for the JSON lines]
#
# Builds the kernels, validates them and the engine, then measures; without a card it says so and
# ends well. PYTHON chooses the interpreter. A step that fails or takes too long is named, and the
# next one runs; the status is then 1.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-/dev/null}
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
status=0

step() { # seconds at most, name, command...
  local limit=$1 name=$2 began=$SECONDS left=$((465 - SECONDS))
  shift 2
  [ "$left" -lt "$limit" ] && limit=$left
  [ "$left" -lt 5 ] && { echo "gpu.sh: no time left for $name"; status=1; return; }
  echo "== $name" >&2
  timeout "$limit" "$@" || { status=1; echo "gpu.sh: $name failed or took over $limit s"; }
  echo "== $name: $((SECONDS - began)) s" >&2
}

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "gpu.sh: no CUDA device here (or no PyTorch that sees it); nothing was measured"
  exit 0
fi

build() {
  IADD_CUDA=1 IADD_EXTENSION=1 TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-9.0}" \
    "$PYTHON" setup.py -q build_ext --inplace 2>&1 | tail -5
  [ "${PIPESTATUS[0]}" -eq 0 ]
}
validate() {
  local files=(tests/test_cuda_block.py tests/test_cuda_convnet.py tests/test_cuda_graph.py
    tests/test_cuda_products.py tests/test_cuda_loss.py tests/test_cuda_sums.py
    tests/test_descent.py tests/test_train.py tests/test_augment.py tests/test_distance.py)
  # Whole stages need the package's other requirements, which a bare machine may lack.
  "$PYTHON" -c 'import pydantic, yaml, pyarrow, rich' 2>/dev/null && files+=(tests/test_devices.py)
  "$PYTHON" -m pytest -q -m gpu "${files[@]}"
}
sanitize() { # tool
  compute-sanitizer --tool "$1" --error-exitcode 3 "$PYTHON" benchmarks/gpu.py --tasks kernels |
    tail -4
  [ "${PIPESTATUS[0]}" -eq 0 ]
}
export -f build validate sanitize
export PYTHON

{
  step 150 build bash -c build
  step 90 validate bash -c validate
  step 60 kernels "$PYTHON" benchmarks/gpu.py --tasks kernels
  if command -v compute-sanitizer >/dev/null; then
    step 40 memcheck bash -c "sanitize memcheck"
  else
    echo "gpu.sh: compute-sanitizer is not installed; memory accesses were not checked"
  fi
  step 90 outer "$PYTHON" benchmarks/gpu.py --tasks outer
  step 60 memory "$PYTHON" benchmarks/gpu.py --tasks memory
  step 40 judges "$PYTHON" benchmarks/gpu.py --tasks judges
  step 60 distance "$PYTHON" benchmarks/weighted_distance.py --json --device cuda --seconds 3 \
    --sizes 20000 320010 11000000 100000000
  step 90 packing "$PYTHON" benchmarks/gpu.py --tasks packing
  step 90 experts "$PYTHON" benchmarks/gpu.py --tasks experts
  step 60 precision "$PYTHON" benchmarks/gpu.py --tasks precision
  command -v compute-sanitizer >/dev/null && step 120 racecheck bash -c "sanitize racecheck"
  exit "$status"
} | tee "$out"
exit "${PIPESTATUS[0]}"
