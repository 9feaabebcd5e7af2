"""The study on a cluster: a real Slurm of one node, whose jobs and node fail on the way."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

CONFIGURATION = """\
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2
BatchStartTimeout=1
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
MinJobAge=3600
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=6 RealMemory=64000 State=UNKNOWN
PartitionName=closed Nodes=ALL Default=YES State=DOWN
PartitionName=open Nodes=ALL State=UP
"""
PROFILE = """\
default-resources:
  slurm_partition: "'open'"
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 3
latency-wait: 10
"""


@dataclass
class Cluster:
    """A Slurm of one node, for as long as a test module runs."""

    folder: Path
    environment: dict[str, str]

    def call(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def jobs(self, rule: str = "") -> list[dict[str, str]]:
        """What Slurm says of each job that there is or was, first the oldest; of one rule's."""
        found = []
        for line in self.call("scontrol", "show", "job", "--oneliner").splitlines():
            job = dict(word.split("=", 1) for word in line.split(" ") if "=" in word)
            if "JobId" in job and job.get("Comment", "").startswith(rule):
                found.append(job)
        return sorted(found, key=lambda job: int(job["JobId"]))

    def running(self, rule: str) -> list[str]:
        return [job["JobId"] for job in self.jobs(rule) if job["JobState"] == "RUNNING"]

    def start_node(self) -> None:
        self.call("slurmd", "-N", "localhost")

    def crash_node(self) -> None:
        """Kill the node's daemon and all that it runs."""
        configured = f"SLURM_CONF={self.environment['SLURM_CONF']}"
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                found = (entry / "environ").read_text(errors="replace").split("\0")
                name = (entry / "comm").read_text().strip()
                if configured in found and (
                    name in ("slurmd", "slurmstepd") or "SLURMD_NODENAME=localhost" in found
                ):
                    os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, ProcessLookupError):
                continue


def wait_for(what: Callable[[], object], seconds: float, said: str) -> object:
    """Wait until something is true and return it."""
    deadline = time.time() + seconds
    while not (found := what()):
        assert time.time() < deadline, said
        time.sleep(0.2)
    return found


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))):
        pytest.skip("Slurm is not installed (Debian: apt-get install slurm-wlm)")
    if os.getuid() != 0:
        pytest.skip("this Slurm runs as root only")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "bin", "my profile"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(folder=folder, ports=free_ports(2)))
    (folder / "my profile" / "profile.yaml").write_text(PROFILE)
    # a job's srun is called without SLURM_CONF, and would look in /etc/slurm
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    environment = {
        **os.environ, "VIRTUAL_ENV": sys.prefix, "SLURM_CONF": str(conf),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SNAKEMAKE_PROFILE": str(folder / "my profile"),
    }  # fmt: skip
    found = Cluster(folder, environment)
    found.call("slurmctld", "-c")
    found.start_node()
    try:
        idle = lambda: "idle" in found.call("sinfo", "--noheader", "--format=%T")  # noqa: E731
        wait_for(idle, 30, f"the node did not come up; see {folder}")
        yield found
    finally:
        found.crash_node()
        os.kill(int((folder / "slurmctld.pid").read_text()), signal.SIGTERM)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a study")


def on_slurm(cluster: Cluster, out: Path, *words: str, **more: object) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "run_all.sh", "--profile", "smoke", "--on", "slurm", "--out", str(out), *words],
        cwd=ROOT, env=cluster.environment, text=True, start_new_session=True, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(cluster: Cluster, out: Path) -> Path:
    """The smoke study through Slurm: a job is cancelled and the node fails, with all it runs."""
    folder = out / "smoke"
    number = subprocess.run(["cksum"], input=f"{folder}/work\n", capture_output=True, text=True)
    name = f"kits-{number.stdout.split()[0]}_of-a-killed-call"
    left = ("sbatch", "--parsable", "--partition=open", "--output=/dev/null", f"--job-name={name}")
    cluster.call(*left, "--comment=left", "--wrap=sleep 900")
    said = cluster.folder / "said.txt"
    with said.open("w") as file:
        call = on_slurm(cluster, out, stdout=file, stderr=subprocess.STDOUT)
    try:
        training = lambda: cluster.running("rule_tumor_wildcards") or call.poll() is not None  # noqa: E731
        wait_for(training, 900, "no training was started")
        assert call.poll() is None, said.read_text()
        time.sleep(5)
        cluster.call("scancel", cluster.running("rule_tumor_wildcards")[0])
        cluster.crash_node()
        time.sleep(15)  # Slurm misses no job that is younger than BatchStartTimeout and 10 s
        cluster.start_node()
        assert call.wait(1800) == 0, said.read_text()
    finally:
        if call.poll() is None:
            os.killpg(call.pid, signal.SIGKILL)
    assert f"reports: {folder}/index.html" in said.read_text()
    return folder


def numbers(summary: dict) -> dict:
    """A summary without what depends on the machine's speed."""
    own = "peak_mb", "rules_history"  # with its date
    measured = {name: value for name, value in summary.items() if name not in own}
    return {
        name: numbers(value) if isinstance(value, dict) else value
        for name, value in measured.items()
        if not name.endswith("_s")
    }


def test_the_numbers_are_those_of_a_study_on_one_machine(study: Path, finished: Path) -> None:
    expected = json.loads((finished / "smoke" / "summary.json").read_text())
    assert numbers(json.loads((study / "summary.json").read_text())) == numbers(expected)


def minutes(job: dict[str, str]) -> int:
    hours, minutes, _ = map(int, job["TimeLimit"].split(":"))
    return 60 * hours + minutes


def megabytes(job: dict[str, str]) -> int:
    number, unit = job["MinMemoryNode"][:-1], job["MinMemoryNode"][-1]
    return int(number) * {"M": 1, "G": 1024}[unit]


def test_a_job_asks_for_what_preflight_found_and_for_more_when_it_is_tried_again(
    cluster: Cluster, study: Path
) -> None:
    costs = json.loads((study / "work" / "slurm.json").read_text())["estimate"]["costs"]
    rows, again = {}, {}
    for cost in costs:
        if cost["stage"] == "03_tumor":
            rows.setdefault(cost["what"].partition(":")[0], cost)  # of the seed with a page
    for arm, cost in rows.items():
        for attempt, job in enumerate(cluster.jobs(f"rule_tumor_wildcards_{arm}"), start=1):
            assert minutes(job) == math.ceil(attempt * (10 + 2 * cost["seconds"] / 60))
            assert megabytes(job) == math.ceil(attempt * (1000 + 1.5 * cost["memory"] / 1e6))
            again[arm] = attempt
    assert sorted(again.values()) == [1, 2], "the cancelled job, and it alone, was sent again"
    assert {job["Partition"] for job in cluster.jobs("rule")} == {"open"}
    assert not [job for job in cluster.jobs("rule") if "gpu" in str(job)]


def test_a_job_on_a_node_that_failed_is_started_again(cluster: Cluster, study: Path) -> None:
    assert any(int(job["Restarts"]) > 0 for job in cluster.jobs("rule"))


def test_what_a_killed_call_left_is_cancelled(cluster: Cluster, study: Path) -> None:
    (left,) = cluster.jobs("left")
    assert left["JobState"] == "CANCELLED"


def test_a_second_call_sends_no_job(cluster: Cluster, out: Path, study: Path) -> None:
    before = len(cluster.jobs())
    call = on_slurm(cluster, out, stdout=subprocess.PIPE)
    assert call.communicate()[0].strip() == f"reports: {study}/index.html"
    assert call.returncode == 0 and len(cluster.jobs()) == before


@pytest.mark.parametrize("words", [("--set", "device=cuda"), ("--profile", "paper")])
def test_a_gpu_that_the_cluster_does_not_have_is_refused(
    cluster: Cluster, out: Path, words: tuple[str, str]
) -> None:
    call = on_slurm(cluster, out, *words, stderr=subprocess.PIPE)
    said = call.communicate()[1].splitlines()
    assert call.returncode == 2 and said[-1].endswith("without GPUs add --set device=cpu")


@pytest.mark.parametrize(
    ("words", "environment", "status", "said"),
    [
        (["--on", "sge"], {}, 2, "--on: 'sge' is not slurm"),
        (["--on", "slurm"], {}, 1, "sbatch is not on the PATH"),
        (["--on", "slurm"], {"VIRTUAL_ENV": "/a venv"}, 1, "'/a venv'; move it to a path without"),
    ],
)
def test_where_it_cannot_be_it_says_so_in_one_line(
    tmp_path: Path, words: list[str], environment: dict[str, str], status: int, said: str
) -> None:
    """On a machine with no more programs than are needed to say it."""
    programs = {"dirname": shutil.which("dirname"), "uname": shutil.which("uname")}
    programs |= {"python3": sys.executable, **({"sbatch": "/bin/true"} if environment else {})}
    for name, program in programs.items():
        (tmp_path / name).symlink_to(program)
    done = subprocess.run(
        [shutil.which("bash"), "run_all.sh", *words],
        cwd=ROOT, env={**environment, "PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == status and said in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""
