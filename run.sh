#!/usr/bin/env bash
# bash run.sh        the challenge: cifar10 aggre, worst, rand1 through training, learning, detection
# bash run.sh demo   the same on the embedded digits, method and baseline, 3 seeds: CPU, minutes
# bash run.sh test   the test suite
# bash run.sh setup  only sees to a Python that has what is needed, and prints its path
#
# Words after the first are further options of the training script (of pytest for test).
# Variables: SEEDS="0 1 2", LABEL_SETS="worst", METHODS="bkd ce", RESULTS_DIR=results,
# DATA_DIR=~/data, ALLOW_CPU=1 (the challenge without a GPU), PYTHON=python3.12.
# A finished stage is not repeated.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit

fail() {
  echo "run.sh: error: $*" >&2
  exit 2
}

# has_all PYTHON FILE...: is it Python 3.10 or newer with everything that the files require?
has_all() {
  local python=$1
  shift
  "$python" -c '
import re, sys
from importlib.metadata import version
numbers = lambda text: [int(n) for n in re.findall(r"\d+", text)][:2]
assert sys.version_info >= (3, 10)
for file in sys.argv[1:]:
    for line in open(file):
        if not line.startswith("#"):
            name, sign, wanted = re.fullmatch(r"([\w-]+)([>=]=)(\S+)\s*", line).groups()
            found = version(name)
            assert found == wanted if sign == "==" else numbers(found) >= numbers(wanted)
import torchvision  # also tells whether it fits the torch that is there
' "$@" >/dev/null 2>&1
}

# Sets $python: the current one where it has what is needed, else .venv, made and filled here.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python} .venv/bin/python; do
    if has_all "$candidate" "$@"; then
      python=$candidate
      return
    fi
  done
  python=.venv/bin/python
  if ! "$python" -c '' 2>/dev/null; then
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
      candidate=
    done
    [[ -n $candidate ]] || fail "no Python 3.10 or newer found; install one or name it in PYTHON"
    "$candidate" -m venv .venv || fail "cannot make .venv; on Debian: apt install python3-venv"
  fi
  echo "installing $* into .venv (once)" >&2
  "$python" -m pip install --quiet --disable-pip-version-check "${@/#/-r}" >&2 ||
    fail "pip could not install $*; see above"
  has_all "$python" "$@" || fail "$python still lacks what $* ask; remove .venv and try again"
}

# stage LOG COMMAND...: run it, its output also into LOG; exit status 3 (a guess) is none to fail at.
stage() {
  local log=$1 status
  shift
  "$@" 2>&1 | tee -a "$log"
  status=${PIPESTATUS[0]}
  ((status == 0 || status == 3))
}

# one_run METHOD LABEL_SET SEED OPTION...: the three stages of one run.
one_run() {
  local method=$1 noise_type=$2 seed=$3 suffix='' folder
  local run=(--dataset "$dataset" --noise_type "$2" --seed "$3" --method "$1"
    --results_dir "$results" --data_dir "$data")
  shift 3
  [[ $method == bkd ]] || suffix=_$method
  folder=$results/${dataset}_${noise_type}_seed_$seed$suffix
  mkdir -p "$folder" || return
  if [[ -e $folder/training.json ]]; then # says that it is finished, or which option differs
    stage /dev/null "$python" blind_knowledge_dist_training.py "${run[@]}" "$@" || return
  else
    stage "$folder/training.log" "$python" blind_knowledge_dist_training.py "${run[@]}" "$@" ||
      return
  fi
  [[ $folder/learning.json -nt $folder/training.json ]] ||
    stage "$folder/learning.log" "$python" learning.py "${run[@]}" || return
  [[ $folder/detection.json -nt $folder/training.json ]] ||
    stage "$folder/detection.log" "$python" detection.py "${run[@]}" || return
}

# all_runs OPTION...: every label set, method and seed, then the table; goes on after a failure.
all_runs() {
  local noise_type method seed failed=()
  for seed in $seeds; do
    for noise_type in $label_sets; do
      for method in $methods; do
        one_run "$method" "$noise_type" "$seed" "$@" || failed+=("$noise_type/$method/seed $seed")
      done
    done
  done
  "$python" -m utils.summary "$results"
  ((${#failed[@]} == 0)) || fail "failed: ${failed[*]}"
}

command=${1:-challenge}
shift || true
results=${RESULTS_DIR:-results}
data=${DATA_DIR:-~/data}

case $command in
  challenge)
    dataset=cifar10 seeds=${SEEDS:-0} label_sets=${LABEL_SETS:-aggre worst rand1}
    methods=${METHODS:-bkd}
    find_python requirements.txt
    if [[ -z ${ALLOW_CPU:-} ]] &&
      ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
      echo "No CUDA device here. Measuring a few steps of a full run on the CPU:"
      "$python" blind_knowledge_dist_training.py --noise_type "${label_sets%% *}" \
        --data_dir "$data" --measure_steps 3 "$@" || exit
      echo "That is one of $(wc -w <<<"$label_sets") label sets at each seed. To run it all the" \
        "same: ALLOW_CPU=1 bash run.sh; a run of minutes: bash run.sh demo"
      exit 1
    fi
    all_runs "$@"
    ;;
  demo)
    dataset=digits seeds=${SEEDS:-0 1 2} label_sets=${LABEL_SETS:-aggre rand1 worst}
    methods=${METHODS:-bkd ce}
    find_python requirements.txt
    all_runs "$@"
    ;;
  test)
    find_python requirements.txt tests/requirements.txt
    exec "$python" -m pytest "$@"
    ;;
  setup)
    find_python requirements.txt
    echo "$python"
    ;;
  *)
    fail "unknown command '$command'; choose challenge, demo, test or setup"
    ;;
esac
