#!/usr/bin/env bash
# bash run.sh        the challenge: cifar10 aggre, worst, rand1 through training, learning, detection
# bash run.sh demo   the same on the embedded digits, method and baseline, 3 seeds: CPU, minutes
# bash run.sh test   the test suite
# bash run.sh measure  all that is to be known of a GPU, in the order that matters: tests, benchmark,
#                    the three label sets, the baseline, more seeds, all 50,000 images, CIFAR-100,
#                    the other label sets, two departures. It stops where something looks wrong
#                    (GO_ON=1: tells and goes on), packs what is to be kept whenever it ends, and
#                    goes on where it was when called again. STAGES="bkd ce": only these
# bash run.sh setup  only sees to a Python that has what is needed, and prints its path
#
# Words after the first are further options of the training script (of pytest for test).
# Variables: SEEDS="0 1 2", LABEL_SETS="worst", METHODS="bkd ce", RESULTS_DIR=results,
# DATA_DIR=~/data, ALLOW_CPU=1 (the challenge without a GPU), PYTHON=python3.12, and JOBS=4: so many
# runs at a time, each on a GPU of its own while there are enough; they then print to their logs.
# The demo takes as many as there are cores, 8 at most, unless JOBS says otherwise.
# A finished stage is not repeated. Exit status: 0; 1 where the challenge is not run for want of a
# GPU; 2 for wrong input and where a run failed.
set -uo pipefail

fail() {
  echo "run.sh: error: $*" >&2
  exit 2
}

# absolute PATH: as seen from where run.sh was called.
absolute() {
  case $1 in
    /*) echo "$1" ;;
    *) echo "$PWD/$1" ;;
  esac
}

top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit
results=$top/results
[[ -z ${RESULTS_DIR:-} ]] || results=$(absolute "$RESULTS_DIR")
data=$HOME/data
[[ -z ${DATA_DIR:-} ]] || data=$(absolute "$DATA_DIR")
cd "$top" || exit

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
        if line.strip() and not line.startswith("#"):
            name, sign, wanted = re.fullmatch(r"([\w-]+)([>=]=)(\S+)\s*", line).groups()
            found = version(name)
            assert found == wanted if sign == "==" else numbers(found) >= numbers(wanted)
import torchvision  # also tells whether it fits the torch that is there
' "$@" >/dev/null 2>&1
}

# Sets $python: the current one where it has what is needed, else .venv, made and filled here. The
# .venv builds on the current Python's packages where only those for the tests are missing there.
find_python() {
  local candidate sites='' pythons=(python3 python)
  [[ -z ${PYTHON:-} ]] || pythons=("$PYTHON")
  for candidate in "${pythons[@]}" .venv/bin/python; do
    if has_all "$candidate" "$@"; then
      python=$candidate
      return
    fi
  done
  [[ -n ${PYTHON:-} ]] || pythons+=(python3.14 python3.13 python3.12 python3.11 python3.10)
  python=.venv/bin/python
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    for candidate in "${pythons[@]}"; do
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
      candidate=
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

# refuse OPTION...: those that run.sh sets itself, for all three scripts alike.
refuse() {
  local word
  for word; do
    case ${word%%=*} in
      --seed) fail "$word: say SEEDS=… in front of bash" ;;
      --noise_type) fail "$word: say LABEL_SETS=… in front of bash" ;;
      --method) fail "$word: say METHODS=… in front of bash" ;;
      --results_dir) fail "$word: say RESULTS_DIR=… in front of bash" ;;
      --data_dir) fail "$word: say DATA_DIR=… in front of bash" ;;
      --dataset) fail "$word: run.sh is for CIFAR-10 and the demo; call the scripts themselves" ;;
    esac
  done
}

# needs_cuda: is there a GPU, or is none wanted?
needs_cuda() {
  [[ -n ${ALLOW_CPU:-} ]] ||
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
}

# stage LOG COMMAND...: run it, its output also into LOG; exit status 3 (a guess) is none to fail at.
# SIGINT and SIGTERM are handed on to it, once: it then writes a checkpoint and nothing else begins.
stage() {
  local log=$1 status pipe writer
  shift
  ((stopped == 0)) || exit "$stopped"
  pipe=$(mktemp -u) && mkfifo "$pipe" || return
  set -m # each in a process group of its own, so that a terminal's Ctrl-C reaches this shell alone
  tee -a "$log" <"$pipe" &
  writer=$!
  "$@" >"$pipe" 2>&1 &
  child=$!
  set +m
  trap 'hand_on INT 130' INT
  trap 'hand_on TERM 143' TERM
  while :; do
    wait "$child"
    status=$?
    kill -0 "$child" 2>/dev/null || break # else it was a signal that ended the waiting
  done
  child=
  wait "$writer"
  rm -f "$pipe"
  ((stopped == 0)) || exit "$stopped"
  ((status == 0 || status == 3))
}

hand_on() {
  stopped=$2
  [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null
}

# take_in LOG FOLDER: append it to the folder's training.log.
take_in() {
  mkdir -p "$2" && cat "$1" >>"$2/training.log" && rm "$1"
}

# one_run METHOD LABEL_SET SEED OPTION...: the three stages of one run.
one_run() {
  local method=$1 noise_type=$2 seed=$3 suffix='' folder
  local run=(--dataset "$dataset" --noise_type "$2" --seed "$3" --method "$1"
    --results_dir "$results" --data_dir "$data")
  shift 3
  [[ $noise_type != worse ]] || noise_type=worst # the other word for it
  [[ $method == bkd ]] || suffix=_$method
  folder=$results/${dataset}_${noise_type}_seed_$seed$suffix
  mkdir -p "$folder" || return
  local log=$folder.log # for --restart moves the folder away, its log with it
  [[ ! -e $log ]] || take_in "$log" "$folder" # of one that was interrupted
  if [[ " $* " == *" --restart "* ]]; then
    stage "$log" "$python" blind_knowledge_dist_training.py "${run[@]}" "$@"
    local status=$?
    take_in "$log" "$folder" && ((status == 0)) || return
  elif [[ -e $folder/training.json ]]; then # says that it is finished, or which option differs
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
  failures=$(mktemp) || fail "cannot make a temporary file"
  trap 'rm -f "$failures"' EXIT
  ((jobs == 1)) || open_slots
  queue "$@"
  "$python" -m utils.summary "$results" || echo summary >>"$failures"
  no_failures
}

no_failures() {
  local failed
  failed=$(paste -sd, "$failures")
  [[ -z $failed ]] || fail "failed: ${failed//,/, }"
}

# count_runs: how many runs there are of every label set, method and seed.
count_runs() {
  echo $(($(wc -w <<<"$label_sets") * $(wc -w <<<"$seeds") * $(wc -w <<<"$methods")))
}

# queue OPTION...: every label set, method and seed, until the last has ended.
queue() {
  local noise_type method seed
  ((jobs == 1)) || [[ $dataset == digits ]] || fetch || fail "no data, see above"
  for seed in $seeds; do
    for noise_type in $label_sets; do
      for method in $methods; do
        if ((jobs == 1)); then
          one_run "$method" "$noise_type" "$seed" "$@" ||
            echo "$noise_type/$method/seed $seed" >>"$failures"
        else
          in_a_slot "$method" "$noise_type" "$seed" "$@"
        fi
      done
    done
  done
  wait
}

# test_command: sets $tests, what runs as many tests at a time as there are cores, 8 at most.
test_command() {
  tests=(env "OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}" "$python" -m pytest -n auto
    --maxprocesses 8 --dist worksteal)
}

# wanted STAGE: is it one of those to be measured?
wanted() {
  [[ " $stages " == *" $1 "* ]]
}

# doubt WORDS: stop for that, or only tell it.
doubt() {
  [[ -n ${GO_ON:-} ]] || fail "$*; look into that first (GO_ON=1 goes on all the same)"
  echo "$*; going on for GO_ON=1"
}

# once STAGE COMMAND...: a stage that is not repeated once it has succeeded.
once() {
  local name=$1
  shift
  wanted "$name" && [[ ! -e $base/$name.done ]] || return 0
  if stage "$base/$name.log" "$@"; then touch "$base/$name.done"; else doubt "$name failed"; fi
}

# runs_of STAGE FOLDER DATASET LABEL_SETS METHODS SEEDS OPTION...: train and evaluate all of these,
# then look whether they are what can be expected.
runs_of() {
  wanted "$1" || return 0
  echo "== $1"
  results=$base/$2 dataset=$3 label_sets=$4 methods=$5 seeds=$6
  shift 6
  queue "$@"
  no_failures
  "$python" -m utils.account "$results" || doubt "a run looks wrong, see above"
}

# pack: what is to be kept of all that was measured, without networks and single predictions.
pack() {
  local folder
  rm -rf "$base/kept" "$base/kept.tar.gz"
  mkdir -p "$base/kept/logs" "$base/kept/pictures"
  for folder in "$base"/*/*/args.json; do
    [[ -e $folder ]] || continue
    folder=${folder%/args.json}
    local name=${folder#"$base/"}
    mkdir -p "$base/kept/logs/$name" "$base/kept/pictures/$name"
    cp "$folder"/*.log "$base/kept/logs/$name" 2>/dev/null
    cp "$folder"/*.png "$base/kept/pictures/$name" 2>/dev/null
  done
  cp "$base"/*.log "$base"/benchmark.json "$base/kept/logs" 2>/dev/null
  for folder in challenge all_images detached_target masked_mean; do
    compgen -G "$base/$folder/*/training.json" >/dev/null || continue
    "$python" -m utils.summary "$base/$folder" --keep "$base/kept/results/$folder"
    "$python" -m utils.account "$base/$folder" --markdown >"$base/kept/$folder.md"
  done
  tar -C "$base" -czf "$base/kept.tar.gz" kept
  echo "to keep: $base/kept.tar.gz; its results/NAME belong into docs/results, NAME.md into" \
    "docs/reproduction.md; then python -m utils.summary docs/results/NAME --into README.md"
}

# fetch: see to the data before several runs do so at once.
fetch() {
  "$python" -c '
import sys
from pathlib import Path
from data.cifar import load_cifar
from data.cifar_n import fetch_label_file
dataset, folder = sys.argv[1], Path(sys.argv[2])
try:
    load_cifar(dataset, folder), fetch_label_file(dataset, folder)
except OSError as error:
    sys.exit(f"run.sh: error: {error}")
' "$dataset" "$data"
}

# open_slots: a pipe with a number for each run that may be under way; shares out GPUs and cores.
open_slots() {
  local pipe slot
  pipe=$(mktemp -u)
  mkfifo "$pipe" || fail "cannot make a pipe"
  exec 3<>"$pipe"
  rm "$pipe"
  for ((slot = 0; slot < jobs; slot++)); do echo "$slot" >&3; done
  IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$("$python" -c '
import torch
print(*range(torch.cuda.device_count()), sep=",")')}"
  local cores
  cores=$("$python" -c 'import os; print(os.cpu_count())')
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > jobs ? cores / jobs : 1))}
  trap 'stop_all 130' INT
  trap 'stop_all 143' TERM
}

# in_a_slot METHOD LABEL_SET SEED OPTION...: start that run as soon as a slot is free.
in_a_slot() {
  local slot said='' name="$2/$1/seed $3"
  read -r slot <&3
  (
    ((${#gpus[@]} == 0)) || export CUDA_VISIBLE_DEVICES=${gpus[slot % ${#gpus[@]}]}
    exec 4>&1 # for the next line, which is reached with the output of one_run sent elsewhere
    trap '((stopped == 0)) || echo "$name: $(tail -n 1 "$said")" >&4; rm -f "$said"' EXIT
    echo "$name: started${CUDA_VISIBLE_DEVICES:+ on GPU $CUDA_VISIBLE_DEVICES}"
    if said=$(mktemp) && one_run "$@" >"$said" 2>&1; then
      echo "$name: finished$(sed -nE 's/^(Best test acc|The f-score)/, \1/p' "$said" | tr -d '\n')"
    else
      echo "$name: failed: $(tail -n 1 "$said"); its logs are in $results"
      echo "$name" >>"$failures"
    fi
    echo "$slot" >&3
  ) &
}

# stop_all STATUS: tell all runs under way, and wait for their checkpoints.
stop_all() {
  local pid
  for pid in $(jobs -p); do kill -s TERM "$pid" 2>/dev/null; done
  wait
  exit "$1"
}

stopped=0 child=
jobs=${JOBS:-1}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "JOBS=$jobs: say how many runs at a time, a number from 1"
command=challenge
if [[ ${1:--} != -* ]]; then
  command=$1
  shift
fi

case $command in
  challenge)
    dataset=cifar10 seeds=${SEEDS:-0} label_sets=${LABEL_SETS:-aggre worst rand1}
    methods=${METHODS:-bkd}
    refuse "$@"
    find_python requirements.txt
    if ! needs_cuda; then
      echo "No CUDA device here. Measuring a few steps of a full run on the CPU:"
      "$python" blind_knowledge_dist_training.py --noise_type "${label_sets%% *}" \
        --data_dir "$data" --measure_steps 3 "$@" || exit
      echo "This would be $(count_runs) such runs. To start them all the same: ALLOW_CPU=1 bash" \
        "run.sh; for a try of minutes: bash run.sh demo"
      exit 1
    fi
    all_runs "$@"
    ;;
  demo)
    dataset=digits seeds=${SEEDS:-0 1 2} label_sets=${LABEL_SETS:-aggre rand1 worst}
    methods=${METHODS:-bkd ce}
    refuse "$@"
    find_python requirements.txt
    [[ -n ${JOBS:-} ]] || jobs=$("$python" -c 'import os, sys
print(min(os.cpu_count() or 1, int(sys.argv[1]), 8))' "$(count_runs)")
    all_runs "$@"
    ;;
  measure)
    refuse "$@"
    stages=${STAGES:-tests benchmark bkd ce seeds all_images cifar100 more_labels departures}
    needed=(requirements.txt)
    ! wanted tests || needed+=(tests/requirements.txt)
    find_python "${needed[@]}"
    needs_cuda || fail "no CUDA device here; a try on the CPU: ALLOW_CPU=1 GO_ON=1 bash run.sh" \
      "measure --width 4 --limit_train 300 --n_epoch 7"
    base=$results quick=()
    [[ -n ${RESULTS_DIR:-} ]] || base=$results/measure
    mkdir -p "$base" || exit
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || quick=(--quick)
    failures=$(mktemp) || fail "cannot make a temporary file"
    trap 'rm -f "$failures"; pack' EXIT
    ((jobs == 1)) || open_slots
    test_command
    once tests "${tests[@]}" -q
    once benchmark "$python" benchmark.py --json "$base/benchmark.json" "${quick[@]}"
    if wanted benchmark; then
      minutes=$("$python" -c '
import json, sys
print(int(json.load(open(sys.argv[1]))["run_seconds"] / 60))' "$base/benchmark.json") || exit
      ((minutes < 8)) || doubt "300 epochs would take $minutes minutes, more than 8"
    fi
    runs_of bkd challenge cifar10 "worst aggre rand1" bkd 0 "$@"
    runs_of ce challenge cifar10 "worst aggre rand1" ce 0 "$@"
    runs_of seeds challenge cifar10 "worst aggre rand1" bkd "${SEEDS:-1 2}" "$@"
    runs_of all_images all_images cifar10 "worst aggre rand1" bkd 0 --val_ratio 0 "$@"
    runs_of cifar100 challenge cifar100 noisy100 bkd 0 "$@"
    runs_of more_labels challenge cifar10 "rand2 rand3" bkd 0 "$@"
    runs_of departures detached_target cifar10 worst bkd 0 --detach_student_target "$@"
    runs_of departures masked_mean cifar10 worst bkd 0 --masked_mean "$@"
    ;;
  test)
    find_python requirements.txt tests/requirements.txt
    test_command
    exec "${tests[@]}" "$@"
    ;;
  setup)
    find_python requirements.txt
    echo "$python"
    ;;
  *)
    fail "unknown command '$command'; choose challenge, demo, measure, test or setup"
    ;;
esac
