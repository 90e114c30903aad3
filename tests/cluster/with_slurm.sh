#!/usr/bin/env bash
# Run a command inside a throw-away SLURM cluster of this machine; see README.md beside this file.
#
#   [NODES=2] [ACCOUNTING=yes] tests/cluster/with_slurm.sh COMMAND...
#
# Needs root and Debian's packages: munge slurmctld slurmd slurm-client iproute2, for accounting slurmdbd mariadb-server.
# The cluster lives in mount, pid and network namespaces of its own: when COMMAND ends, all of it is gone.
set -euo pipefail

NODES=${NODES:-2}
ACCOUNTING=${ACCOUNTING:-no}
if [ -z "${INSIDE_SLURM_BOX:-}" ]; then
    export INSIDE_SLURM_BOX=1 BOX=${BOX:-$(mktemp -d)}
    exec unshare --mount --pid --net --fork --kill-child --mount-proc bash "$0" "$@"
fi


mkdir -p "$BOX"/{etc,log,run,state,spool,db}
chmod 755 "$BOX"
socket=$BOX/run/munge.socket
host=$(hostname -s)
unset SLURM_CONF

# Wait until a command succeeds, at most five minutes; 1 at once when the process that it waits for has ended.
wait_for() {
    for _ in $(seq 1500); do
        if timeout 3 bash -c "$1" >/dev/null 2>&1; then return; fi
        if [ -n "${2:-}" ] && ! kill -0 "$2" 2>/dev/null; then return 1; fi
        sleep 0.2
    done
    echo "with_slurm: still not true after minutes: $1; logs in $BOX/log" >&2
    exit 1
}

network() {
    ip link set lo up
    # slurmctld does not start where loopback is the only interface.
    ip link add box0 type veth peer name box1
    ip addr add 10.213.0.1/24 dev box0
    ip link set box0 up
    # Nodes must have names that resolve, or torch waits a minute for its rendezvous.
    { echo "127.0.0.1 $host $(hostname) $(seq -f n%g -s ' ' "$NODES")"; cat /etc/hosts; } >"$BOX/etc/hosts"
    mount --bind "$BOX/etc/hosts" /etc/hosts
    # The configuration must be where SLURM looks by itself: snakemake's job steps drop SLURM_CONF.
    mkdir -p /etc/slurm
    mount --bind "$BOX/etc" /etc/slurm
}

authentication() {
    (umask 077; head -c 128 /dev/urandom >"$BOX/etc/munge.key")
    cat >"$BOX/start_munged" <<END
munged --force --key-file=$BOX/etc/munge.key --socket=$socket --pid-file=$BOX/run/munged.pid \
    --log-file=$BOX/log/munged.log --seed-file=$BOX/run/munged.seed
END
    bash "$BOX/start_munged"
}

configuration() {
    cat >"$BOX/etc/slurm.conf" <<END
ClusterName=box
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$BOX/state
SlurmdSpoolDir=$BOX/spool/%n
SlurmctldPidFile=$BOX/run/slurmctld.pid
SlurmdPidFile=$BOX/run/slurmd.%n.pid
SlurmctldLogFile=$BOX/log/slurmctld.log
SlurmdLogFile=$BOX/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Nodes may claim more than this machine has: jobs here wait more than they compute.
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
JobRequeue=1
KillWait=5
MinJobAge=300
SlurmdTimeout=${SLURMD_TIMEOUT:-300}
PartitionName=main Nodes=n[1-$NODES] Default=YES MaxTime=INFINITE DefaultTime=10 DefMemPerCPU=500 State=UP
END
    for k in $(seq "$NODES"); do
        echo "NodeName=n$k NodeHostname=$host NodeAddr=127.0.0.1 Port=$((17000 + k)) CPUs=16 RealMemory=64000"
    done >>"$BOX/etc/slurm.conf"
    if [ "$ACCOUNTING" = yes ]; then
        cat >>"$BOX/etc/slurm.conf" <<END
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$socket
AccountingStorageEnforce=associations
END
    else
        echo "AccountingStorageType=accounting_storage/none" >>"$BOX/etc/slurm.conf"
    fi
}

# Exit status 3: the cluster could be had without accounting.
no_database() {
    echo "the database cannot start: $(grep -h ERROR "$BOX"/log/mariadb*.log | tail -n 1)" >&2
    exit 3
}

# A database, slurmdbd, and one account, "physics", that root may use.
accounting() {
    local db="--no-defaults --user=root --socket=$BOX/db/socket"
    chown mysql: "$BOX/db"
    mariadb-install-db --no-defaults --user=mysql --datadir="$BOX/db" --auth-root-authentication-method=normal \
        --skip-test-db >"$BOX/log/mariadb-install.log" 2>&1 || no_database
    mariadbd --no-defaults --user=mysql --datadir="$BOX/db" --socket="$BOX/db/socket" --pid-file="$BOX/db/pid" \
        --bind-address=127.0.0.1 --port=13306 --innodb-lock-wait-timeout=900 >"$BOX/log/mariadbd.log" 2>&1 &
    wait_for "mariadb-admin $db ping" $! || no_database
    mariadb $db -e "create database slurm_acct_db; create user slurm@127.0.0.1 identified by 'box';
        create user slurm@localhost identified by 'box';
        grant all on slurm_acct_db.* to slurm@127.0.0.1, slurm@localhost"
    (umask 077; cat >"$BOX/etc/slurmdbd.conf" <<END
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=13306
StorageUser=slurm
StoragePass=box
StorageLoc=slurm_acct_db
LogFile=$BOX/log/slurmdbd.log
PidFile=$BOX/run/slurmdbd.pid
END
    )
    slurmdbd
    wait_for "sacctmgr --noheader show cluster"
    sacctmgr --immediate add cluster box >/dev/null
    sacctmgr --immediate add account physics >/dev/null
    sacctmgr --immediate add user root account=physics >/dev/null
}

# SLURM holds every requeued job for two minutes. "now" would be too soon: a restart within the same second is refused.
shorten_holds() {
    while sleep 1; do
        squeue --noheader --states=PD --format='%i %r %S' 2>/dev/null | while read -r job reason start; do
            left=$(($(date -d "$start" +%s 2>/dev/null || echo 0) - $(date +%s)))
            if [ "$reason" = BeginTime ] && [ $left -gt 10 ]; then
                scontrol update jobid="$job" starttime=now+3 || true
            fi
        done || true
    done
}

network
authentication
configuration
if [ "$ACCOUNTING" = yes ]; then accounting; fi
slurmctld
wait_for "scontrol ping | grep -q 'is UP'"
for k in $(seq "$NODES"); do slurmd -N "n$k"; done
wait_for "[ \$(sinfo --noheader --Node --states=idle | wc -l) = $NODES ]"
shorten_holds &
touch "$BOX/ready"

set +e
"$@"
exit $?
