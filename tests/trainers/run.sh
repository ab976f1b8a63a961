#!/bin/sh
# Proves exports, adapters and engines with the trainers' own code, each in a virtual environment of its own, since no
# two of them can share one.
#   sh tests/trainers/run.sh [STAGE ...] [-- arguments of pytest]
# A stage is a folder beside this file with an install.sh, which calls `install` for what it needs; all by default.
# PYTHON: the interpreter (3.11 or newer). The environments live in .venv-STAGE; they are kept, and made anew only where
# pyproject.toml, the stage's pins (.ci/constraints-STAGE.txt) or its install.sh have changed since.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
HERE=tests/trainers

say() {
  printf 'test-trainers: %s\n' "$*"
}

install() {
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@" || {
    say "could not install: $*"
    say "torch is the largest piece; delete $VENV and try again, or point pip at an index or folder that holds it"
    exit 1
  }
}

prepare() {
  VENV=.venv-$1 PINS=.ci/constraints-$1.txt
  wanted=$(cat pyproject.toml "$PINS" "$HERE/$1/install.sh" | cksum)
  [ "$(cat "$VENV/.ready" 2>/dev/null || true)" != "$wanted" ] || return 0
  [ -x "$VENV/bin/python" ] || {
    say "making $VENV"
    "$PYTHON" -m venv "$VENV"
  }
  say "installing what $1 needs (some minutes the first time)"
  # Alone and first: a torch that is there already is kept, and none with other companions is looked for.
  install torch==2.13.0
  . "$HERE/$1/install.sh"
  printf '%s\n' "$wanted" > "$VENV/.ready"
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "needs Python 3.11 or newer; name one with PYTHON=python3.12"
  exit 1
}
stages=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  [ -f "$HERE/$1/install.sh" ] || {
    say "there is no stage '$1'; there are:" $(cd $HERE && ls -d */install.sh | cut -d/ -f1)
    exit 1
  }
  stages="$stages $1"
  shift
done
[ $# -eq 0 ] || shift
[ -n "$stages" ] || stages=$(cd $HERE && ls -d */install.sh | cut -d/ -f1)

failed=
for stage in $stages; do
  prepare "$stage"
  say "$stage: $("$VENV/bin/python" --version), $("$VENV/bin/python" -m pip list --format=freeze 2>/dev/null \
    | grep -E "^($stage|torch|transformers)==" | tr '\n' ' ')"
  AGENTENV_TRAINER=$stage HF_HUB_OFFLINE=1 "$VENV/bin/python" -m pytest "$HERE/$stage" "$@" || failed="$failed $stage"
done
[ -z "$failed" ] || {
  say "failed:$failed"
  exit 1
}
