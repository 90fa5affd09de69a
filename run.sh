#!/usr/bin/env bash
# bash run.sh         the challenge: cifar10 aggre, worst, rand1: training, learning, detection; GPU
# bash run.sh laptop  CIFAR-10N without a GPU: compact networks, baseline, bkd and bkd+, the whole
#                     label sets; hours on two cores
# bash run.sh demo    the same methods on the embedded digits, 3 seeds: CPU, minutes
# bash run.sh test    the test suite
# bash run.sh setup   finds or makes a Python that has what is needed, and prints its path
#
# Further words are options of the training script (of pytest for test). Variables: SEEDS="0 1 2",
# LABEL_SETS="worst", METHODS="bkd+ ce", NET=compact, RESULTS_DIR=results, DATA_DIR=~/data, JOBS=4
# (runs at a time, spread over the GPUs; laptop and demo: as many as there are cores, 8 at most),
# ALLOW_CPU=1 (the challenge without a GPU), PYTHON=python3.12. More: docs/sweeps.md
# Exit status: 0; 1: no GPU for the challenge; 2: wrong input, or a run failed; 128 + signal.
[ -n "${BASH_VERSION:-}" ] || { echo "run.sh: error: needs bash; say: bash run.sh" >&2; exit 2; }
set -ufo pipefail # f: no file names for the * in SEEDS="*"

fail() {
  echo "run.sh: error: $*" >&2
  exit 2
}

absolute() { # as seen from where run.sh was called
  case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}

has_all() { # PYTHON FILE...: is it Python 3.10 or newer with all that the files require?
  "$1" utils/has_packages.py "${@:2}" >/dev/null 2>&1
}

# Sets $python: the current one where it has what is needed, else .venv, made and filled here. The
# .venv builds on the current Python's packages where only those for the tests are missing there.
find_python() {
  local candidate sites='' pythons=(python3 python)
  [[ -z ${PYTHON:-} ]] || pythons=("$PYTHON")
  for python in "${pythons[@]}" .venv/bin/python; do
    ! has_all "$python" "$@" || return 0
  done
  [[ -n ${PYTHON:-} ]] || pythons+=(python3.14 python3.13 python3.12 python3.11 python3.10)
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    for candidate in "${pythons[@]}" ''; do
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
    done
    [[ -n $candidate ]] || fail "no Python 3.10 or newer found; install one or name it in PYTHON"
    ! has_all "$candidate" requirements.txt || sites=--system-site-packages
    "$candidate" -m venv --clear $sites .venv ||
      fail "cannot make .venv with $candidate; on Debian: apt install python3-venv"
  fi
  echo "installing what $* ask into .venv (once)" >&2
  "$python" -m pip install --quiet --disable-pip-version-check "${@/#/-r}" >&2 ||
    fail "pip could not install what $* ask; see above"
  has_all "$python" "$@" || fail "$python still lacks what $* ask; remove .venv and try again"
}

command=challenge files=(requirements.txt) needs_gpu=--needs_gpu
[[ ${1:--} == -* ]] || { command=$1 && shift; }
export HOME=${HOME:-~}
[[ -z ${ALLOW_CPU:-} ]] || needs_gpu=''
folders=(--data_dir "$(absolute "${DATA_DIR:-$HOME/data}")")
[[ -z ${RESULTS_DIR:-} ]] || folders+=(--results_dir "$(absolute "$RESULTS_DIR")")
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
case $command in
  challenge | laptop | demo | setup) ;;
  test) files+=(tests/requirements.txt) ;;
  *) fail "unknown command '$command'; choose challenge, laptop, demo, test or setup" ;;
esac
find_python "${files[@]}"

# The variables hold words: they are split, and `set -f` keeps their * as it is.
case $command in
  challenge) set -- --noise_types ${LABEL_SETS:-aggre worst rand1} --seeds ${SEEDS:-0} \
    --methods ${METHODS:-bkd} ${NET:+--net $NET} --jobs "${JOBS:-1}" $needs_gpu \
    "${folders[@]}" -- "$@" ;;
  laptop) set -- --noise_types ${LABEL_SETS:-aggre rand1 worst} --seeds ${SEEDS:-0} \
    --methods ${METHODS:-ce bkd bkd+} --net ${NET:-compact} --jobs "${JOBS:-auto}" --page \
    "${folders[@]}" -- "$@" ;;
  demo) set -- --dataset digits --noise_types ${LABEL_SETS:-aggre rand1 worst} \
    --seeds ${SEEDS:-0 1 2} --methods ${METHODS:-ce bkd bkd+} --jobs "${JOBS:-auto}" \
    "${folders[@]}" -- "$@" ;;
  test) OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec "$python" -m pytest -n auto \
    --maxprocesses 8 --dist worksteal "$@" ;;
  setup) echo "$python" && exit ;;
esac
exec "$python" -m utils.sweep "$@"
