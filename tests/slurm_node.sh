#!/usr/bin/env bash
# A SLURM of one node in a folder: no systemd, no cgroups, no accounting. Root, on Debian.
#   slurm_node.sh install       Debian's packages, where they are missing; at most five minutes
#   slurm_node.sh up FOLDER     munged, slurmctld, slurmd; partitions as in workflow/profiles/slurm
#   slurm_node.sh down FOLDER   end those three
# A machine that has a slurm.conf of its own is left alone.
set -euo pipefail

CONF=/etc/slurm/slurm.conf # a job finds it nowhere else: the executor's step drops SLURM_CONF
PROGRAMS="munged slurmctld slurmd sbatch srun squeue scancel"

fail() {
  echo "slurm_node.sh: $*" >&2
  exit 1
}

complete() {
  for program in $PROGRAMS; do command -v "$program" >/dev/null || return 1; done
}

install() {
  complete && return
  [ "$(id -u)" = 0 ] || fail "not root, and SLURM is not installed"
  command -v apt-get >/dev/null || fail "SLURM is not installed, and there is no apt-get"
  export DEBIAN_FRONTEND=noninteractive
  local wait="-o DPkg::Lock::Timeout=60 -o Acquire::Retries=1"
  timeout 90 apt-get $wait update -qq >/dev/null 2>&1 || true # the lists may do as they are
  timeout 200 apt-get $wait install -y -qq --no-install-recommends \
    munge slurmctld slurmd slurm-client >/dev/null 2>&1 || true
  complete || fail "Debian's packages munge, slurmctld, slurmd, slurm-client cannot be installed"
}

write_conf() {
  local folder=$1 host=$2
  # Eight processors and 64 GB whatever the machine has: config_overrides lets a node say so.
  cat >"$folder/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
MinJobAge=600
KillWait=20
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=65536 Gres=gpu:4
PartitionName=cpu Nodes=$host Default=YES DefaultTime=1
PartitionName=gpu Nodes=$host DefaultTime=1
END
  # Four devices that every machine has: SLURM wants device files, and only names them to jobs.
  for device in null zero full random; do
    echo "NodeName=$host Name=gpu File=/dev/$device"
  done >"$folder/gres.conf"
}

ours() { # a link that an earlier SLURM of this script left behind
  [ -L $CONF ] && ! timeout 10 scontrol ping 2>/dev/null | grep -q UP
}

up() {
  local folder=$1 host
  host=$(hostname -s)
  [ "$(id -u)" = 0 ] || fail "not root"
  { [ ! -e $CONF ] && [ ! -L $CONF ]; } || ours || fail "this machine has $CONF"
  mkdir -p "$folder"/{state,spool} /etc/slurm
  chmod 755 "$folder"
  dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
  chmod 400 "$folder/munge.key"
  write_conf "$folder" "$host"
  ln -sf "$folder/slurm.conf" $CONF
  ln -sf "$folder/gres.conf" /etc/slurm/gres.conf
  # --force: the folders above may be open to others, as /tmp is.
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
  slurmctld -c -i
  slurmd -N "$host"
  for _ in $(seq 100); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && return
    sleep 0.2
  done
  sinfo -l >&2 || true
  fail "the node does not become idle; see $folder/*.log"
}

down() {
  for daemon in slurmd slurmctld munged; do
    [ ! -s "$1/$daemon.pid" ] || kill "$(cat "$1/$daemon.pid")" || true
  done
  for link in $CONF /etc/slurm/gres.conf; do
    case "$(readlink $link)" in "$1"/*) rm $link ;; esac
  done
}

"$@"
