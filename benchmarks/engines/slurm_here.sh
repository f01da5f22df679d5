#!/bin/sh
# Turn this machine into a Slurm cluster of one node with two CPUs, for the rows S1 to S8 of run.py.
#
#     sh benchmarks/engines/slurm_here.sh          install Debian's packages where they are missing, and start the daemons
#     sh benchmarks/engines/slurm_here.sh stop     stop them again
#
# For a machine or container of one's own, as root: it replaces /etc/slurm/slurm.conf. Without systemd, cgroups or
# accounting.
set -eu
state=/var/tmp/slurm-here

stop() {
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$state/$daemon.pid" 2>/dev/null || true)
        if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
            while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done # it removes its pid file at its end
            echo "stopped $daemon"
        fi
    done
}

if [ "${1:-}" = stop ]; then
    stop
    exit 0
fi

if ! command -v sbatch slurmctld slurmd munged >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi

stop
mkdir -p "$state/ctld" "$state/d"
chown munge "$state"
chmod 755 "$state"
if [ ! -f /etc/munge/munge.key ]; then
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null
    chown munge: /etc/munge/munge.key
    chmod 400 /etc/munge/munge.key
fi

host=$(hostname -s)
cat >/etc/slurm/slurm.conf <<END
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$state/munge.socket,cred_expire=5
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
KillWait=15
MinJobAge=60
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2
END

setpriv --reuid munge --regid munge --clear-groups munged --force --socket="$state/munge.socket" \
    --pid-file="$state/munged.pid" --log-file="$state/munged.log" --seed-file="$state/munged.seed"
slurmctld
slurmd
for _ in $(seq 30); do
    if sinfo --noheader --format "%T" 2>/dev/null | grep -q idle; then
        sinfo
        exit 0
    fi
    sleep 1
done
echo "Slurm didn't start; the last lines of its logs:" >&2
tail -n 5 "$state"/*.log >&2
exit 1
