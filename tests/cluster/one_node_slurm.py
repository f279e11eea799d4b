"""A SLURM on this machine: loopback only, all its files in one folder, without accounting."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIG = """
ClusterName=iadd
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
ReturnToService=2
MinJobAge=7200
SlurmdParameters=config_overrides
KillWait=3
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=gpu Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=9
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
    "RealMemory={memory} Gres=gpu:2 State=UNKNOWN"
)


class Slurm:
    """Munge, controller and nodes, as children of this process; all of them end with `stop`.

    Args:
        folder: where everything lies; short, because a socket's path has at most 107 bytes.
        cpus: of each node, as SLURM counts them; jobs are not bound to them.
        memory: MiB of each node, likewise only counted.
        nodes: how many.
    """

    def __init__(self, folder: Path, cpus: int = 8, memory: int = 64000, nodes: int = 1) -> None:
        self.folder, self.names = folder, [f"n{k}" for k in range(1, nodes + 1)]
        self.children: list[subprocess.Popen[bytes]] = []
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        ports, host = free_ports(1 + nodes), socket.gethostname().split(".")[0]
        rows = [
            NODE.format(name=name, host=host, port=port, cpus=cpus, memory=memory)
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        user = pwd.getpwuid(os.getuid()).pw_name
        text = CONFIG.format(
            host=host, ports=ports, user=user, folder=folder, nodes="\n".join(rows)
        )
        (folder / "slurm.conf").write_text(text)
        # Pretend cards: any character device will do, nothing opens it.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        # The executor starts srun without the variables of SLURM, so this one is not where it is
        # looked for; on a real cluster it lies in /etc.
        srun = folder / "bin" / "srun"
        srun.parent.mkdir()
        srun.write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
        )
        srun.chmod(0o755)
        path = os.pathsep.join([str(srun.parent), os.environ.get("PATH", "")])
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def start(self) -> None:
        """Start everything; RuntimeError with the logs' last lines if the nodes do not come up."""
        where = [
            f"--{name}={self.folder}/munge.{name}" for name in ("socket", "pid-file", "seed-file")
        ]
        key = f"--key-file={self.folder}/munge.key"
        self._daemon("munged", "--foreground", "--force", key, *where)
        wait_for(lambda: (self.folder / "munge.socket").exists(), 20, self)
        self._daemon("slurmctld", "-D")
        for name in self.names:
            self._daemon("slurmd", "-D", "-N", name)
        wait_for(self._idle, 60, self)

    def _idle(self) -> bool:
        states = self.ask("sinfo", "--noheader", "--Node", "--format=%T", "--partition=batch")
        return states.split() == ["idle"] * len(self.names)

    def _daemon(self, name: str, *options: str) -> None:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        assert path, f"{name} is not installed"
        with (self.folder / f"{name}.out").open("ab") as out:
            self.children.append(
                subprocess.Popen(
                    [path, *options], env=os.environ | self.environment,
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                )
            )  # fmt: skip

    def ask(self, *command: str) -> str:
        """What a SLURM command says; empty where it failed."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> dict[str, dict[str, str]]:
        """What the controller knows of all jobs so far, by id."""
        found = {}
        for line in self.ask("scontrol", "show", "jobs", "--oneliner").splitlines():
            words = [word.partition("=") for word in line.split()]
            fields = {key: value for key, _, value in words}
            if "JobId" in fields:
                found[fields["JobId"]] = fields
        return found

    def stop(self) -> None:
        """Cancel what runs, then end the daemons that were started here."""
        self.ask("scancel", "--state=RUNNING,PENDING", f"--user={os.getuid()}")
        time.sleep(0.5)
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def logs(self) -> str:
        """The last lines of every log."""
        paths = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(
            f"{p.name}: " + "\n".join(p.read_text(errors="replace").splitlines()[-15:])
            for p in paths
        )


def wait_for(there: object, seconds: float, slurm: Slurm | None = None) -> None:
    """Wait until a condition holds; RuntimeError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not there():  # type: ignore[operator]
        dead = slurm is not None and any(child.poll() is not None for child in slurm.children)
        if dead or time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s\n{slurm.logs() if slurm else ''}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports on the loopback address that nobody has at the moment."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
