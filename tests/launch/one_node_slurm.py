"""A Slurm of one node for tests: munged, slurmctld and slurmd on loopback, as root, without systemd
or cgroups. Up in about a second.

apt-get install -y --no-install-recommends slurm-wlm munge
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

CONF = """ClusterName=ci
SlurmctldHost=localhost
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={port2}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=300
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=ci Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    gone = [
        c
        for c in ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue")
        if not shutil.which(c) and not os.path.exists(f"/usr/sbin/{c}")
    ]
    if gone:
        return (
            f"{', '.join(gone)} not installed: apt-get install --no-install-recommends slurm-wlm"
            " munge"
        )
    return None if os.geteuid() == 0 else "a one-node Slurm is started by root"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _munged() -> bool:
    return subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0


def _start_munged() -> None:
    run = pathlib.Path("/run/munge")
    run.mkdir(exist_ok=True)
    shutil.chown(run, "munge", "munge")
    run.chmod(0o755)
    key = pathlib.Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        shutil.chown(key, "munge", "munge")
        key.chmod(0o400)
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged", "--syslog"], check=True)


def _until(ready, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.1)
    return ready()


@contextlib.contextmanager
def cluster(folder):
    """Exports SLURM_CONF while the cluster is up."""
    folder = pathlib.Path(folder)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    # one core is too few for two jobs at once: Slurm only counts them
    text = CONF.format(
        folder=folder,
        port=_free_port(),
        port2=_free_port(),
        cpus=os.cpu_count(),
        memory=max(512, pages - 512),
    )
    (folder / "slurm.conf").write_text(text)
    started, before = not _munged(), os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        if started:
            _start_munged()
        assert _until(_munged), "munged does not come up"
        subprocess.run(["/usr/sbin/slurmctld"], check=True)
        subprocess.run(["/usr/sbin/slurmd", "-N", "localhost"], check=True)

        def idle():
            return (
                "idle"
                in subprocess.run(
                    ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=False
                ).stdout
            )

        assert _until(idle), (folder / "slurmctld.log").read_text()[-2000:]
        yield
    finally:
        subprocess.run(["scancel", "--me"], capture_output=True, check=False)
        for name in ("slurmctld", "slurmd"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
        if started:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pathlib.Path("/run/munge/munged.pid").read_text()), signal.SIGTERM)
        os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)
