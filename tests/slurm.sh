#!/usr/bin/env bash
# bash tests/slurm.sh FOLDER COMMAND…: run a command on a Slurm of one node, partition "here", with
# its files in FOLDER (of this machine, empty or new); the daemons end with the command. As root,
# with Debian's slurm-wlm and munge. Exit status: the command's; 2 where Slurm does not start.
set -uo pipefail

folder=$1 host=$(hostname -s) pids=()
shift
mkdir -p "$folder"/{state,spool,munge} && chmod 755 "$folder" "$folder/munge" || exit 2
export SLURM_CONF=$folder/slurm.conf
socket=$folder/munge/socket
cat >"$SLURM_CONF" <<END
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=$((20000 + $$ % 20000))
SlurmdPort=$((20001 + $$ % 20000))
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=2,sched_min_interval=500000
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=here Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END

end() {
  local pid
  scancel --user root 2>/dev/null
  for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null; done
  wait
}
trap end EXIT

until_true() { # COMMAND…: within 30 seconds
  local tries
  for ((tries = 0; tries < 150; tries++)); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  echo "slurm.sh: error: never: $*; see $folder" >&2
  exit 2
}

(umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
munged --foreground --force --key-file "$folder/munge/key" --socket "$socket" \
  --pid-file "$folder/munge/pid" --seed-file "$folder/munge/seed" \
  --log-file "$folder/munge/log" 2>"$folder/munge/stderr" &
pids+=($!)
until_true test -S "$socket"
slurmctld -D 2>"$folder/slurmctld.stderr" &
pids+=($!)
until_true scontrol ping
slurmd -D -N "$host" 2>"$folder/slurmd.stderr" &
pids+=($!)
idle() { [[ $(sinfo --noheader --format %t) == idle ]]; }
until_true idle
"$@"
