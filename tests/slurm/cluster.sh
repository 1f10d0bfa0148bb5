#!/usr/bin/env bash
# A Slurm of several nodes on this one machine, as whoever calls this (root or not), for tests and for trying things:
#
#   tests/slurm/cluster.sh start FOLDER [NODES] [CPUS_PER_NODE]   # 2 nodes, n1 and n2, of one CPU
#   export SLURM_CONF=FOLDER/slurm.conf; sbatch ...
#   tests/slurm/cluster.sh stop FOLDER
#
# FOLDER holds its configuration, keys, state, process ids and logs; nothing outside of it is written. It needs Debian's
# slurm-wlm and munge. The nodes' names resolve to nothing; their address is NodeAddr, with a port each.
set -euo pipefail
verb=$1 folder=$(realpath -m "$2") nodes=${3:-2} cpus=${4:-1}
export PATH=$PATH:/usr/sbin SLURM_CONF=$folder/slurm.conf

if [ "$verb" = stop ]; then
    for name in slurmctld $(cd "$folder" && ls -d n*.pid 2>/dev/null | sed 's/\.pid//') munged; do
        [ -s "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
    exit 0
fi

for program in munged slurmctld slurmd; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 1; }
done
mkdir -p "$folder"/{state,spool} && chmod 700 "$folder"
head -c 1024 /dev/urandom >"$folder/munge.key" && chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"

# Ports below those that the system hands out: one for slurmctld, and the next ones for the nodes.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1] // 2 + 5000)')
cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# A requeued job waits as long as a credential lives, 120 s by default.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=20
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
$(for i in $(seq "$nodes"); do
    echo "NodeName=n$i NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + i)) CPUs=$cpus"
done)
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
slurmctld
for i in $(seq "$nodes"); do mkdir -p "$folder/spool/n$i" && slurmd -N "n$i"; done
for _ in $(seq 60); do
    [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null)" = "$nodes" ] && exit 0
    sleep 0.5
done
echo "the nodes did not come up; see the logs in $folder" >&2
exit 1
