"""A place for jobs, and jobs that run for as long as a test wants."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray

from cluster.local import LocalSubmitter
from cluster.spec import ClusterError, JobInfo, JobSpec


class Held:
    """A job that reads a data file which is a pipe, so that it runs until the pipe is closed."""

    def __init__(self, place: LocalSubmitter, folder: Path, environment: dict[str, str]) -> None:
        pipe = folder / f"data-{len(list(folder.glob('*.yaml')))}.yaml"
        os.mkfifo(pipe)
        self.id = place.submit(JobSpec(("data", "check", pipe.name), folder, "held", environment))
        self.pipe = self._open_when_read(pipe)

    @staticmethod
    def _open_when_read(pipe: Path) -> int:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with suppress(OSError):  # nobody reads yet
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.02)
        raise TimeoutError(f"no job opened {pipe}")

    def let_go(self) -> None:
        """Give it what it reads, which is no data set, so that it ends with exit code 1."""
        if self.pipe >= 0:
            with suppress(BrokenPipeError):
                os.write(self.pipe, b"names: 7\n")
            os.close(self.pipe)
            self.pipe = -1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LocalSubmitter]:
    """A fresh place for jobs; none is left running."""
    here = LocalSubmitter(tmp_path / "runs" / "jobs")
    yield here
    for job in here.list():
        here.stop(job.id, patience_s=0)


@pytest.fixture
def hold(place: LocalSubmitter, tmp_path: Path) -> Iterator[Callable[..., Held]]:
    """Starts a job that runs until it is let go, and waits until it is well under way."""
    jobs: list[Held] = []

    def start(environment: dict[str, str] | None = None) -> Held:
        jobs.append(Held(place, tmp_path, environment or {}))
        return jobs[-1]

    yield start
    for job in jobs:
        job.let_go()


@pytest.fixture
def until_ended(place: LocalSubmitter) -> Callable[[str], JobInfo]:
    """Waits for a job's end."""

    def wait(job_id: str) -> JobInfo:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            job = place.status(job_id)
            if job.status != "running":
                return job
            time.sleep(0.02)
        raise TimeoutError(f"{job_id} does not end")

    return wait


@pytest.fixture
def in_every_job(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Environment in which a job's Python first runs some code: a real stubborn or prolific command."""

    def environment(code: str) -> dict[str, str]:
        folder = tmp_path / "first"
        folder.mkdir()
        only_jobs = "import sys\nif '-c' in sys.orig_argv:\n"
        text = only_jobs + "".join(f"    {line}\n" for line in code.splitlines())
        (folder / "sitecustomize.py").write_text(text)
        return {"PYTHONPATH": str(folder)}

    return environment


TOKEN = "0123456789abcdef" * 4


class RayMachines:
    """Machines of a Ray cluster that asks for a token: `ray start` several times on this one, in groups of processes.

    Attributes:
        dashboard: URL of the head's dashboard.
        temporary: Where Ray keeps its sessions and their logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # a socket's path must be short
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._port = _free_port()
        self.dashboard = f"http://127.0.0.1:{_free_port()}"

    def start(self, name: str, cpus: int, gpus: int = 0) -> None:
        """One more machine; the first is the head. Its workers find its name in BEAGLE_TEST_NODE."""
        head = not self._started
        where = [f"--address={ray.util.get_node_ip_address()}:{self._port}"]
        if head:
            where = [
                "--head",
                f"--port={self._port}",
                f"--temp-dir={self.temporary}",
                "--dashboard-host=127.0.0.1",
            ]
            where += [f"--dashboard-port={self.dashboard.rsplit(':', 1)[1]}"]
            where += [f"--ray-client-server-port={_free_port()}"]
        words = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--disable-usage-stats",
            *where,
        ]
        words += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--object-store-memory=80000000"]
        words += [f"--dashboard-agent-listen-port={_free_port()}"]
        hidden = ("RAY_", "MLFLOW_", "BEAGLE_", "AWS_")
        environment = {key: text for key, text in os.environ.items() if not key.startswith(hidden)}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"BEAGLE_TEST_NODE": name, "BEAGLE_SCRATCH": str(self.folder / "scratch")}
        with (self.folder / f"{name}.log").open("wb") as log:
            self._started[name] = subprocess.Popen(
                words, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        if head:
            self._wait_for_dashboard(self._started[name])

    def _wait_for_dashboard(self, head: "subprocess.Popen[bytes]") -> None:
        from cluster.ray_jobs import RaySettings, RaySubmitter

        place = RaySubmitter(self.folder / "jobs", RaySettings(self.dashboard))
        end = time.monotonic() + 180
        while True:
            try:
                with place._client() as client:
                    client.list_jobs()
            except ClusterError:
                said = b"".join(path.read_bytes() for path in self.folder.glob("*.log"))
                assert head.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(1)
            else:
                return

    def lose(self, name: str) -> None:
        """A machine is gone from one moment to the next, with all that runs on it."""
        process = self._started.pop(name)
        children = psutil.Process(process.pid).children(recursive=True)
        for each in (*children, psutil.Process(process.pid)):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(30)

    def close(self) -> None:
        for name in reversed(list(self._started)):
            self._started[name].send_signal(signal.SIGTERM)
            try:
                self._started[name].wait(30)
            except subprocess.TimeoutExpired:
                self.lose(name)
        shutil.rmtree(self.temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def ray_machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayMachines]:
    """A cluster without machines; clients get its token by the environment."""
    pytest.importorskip("opencensus", reason="the dashboard needs ray[default]")
    machines = RayMachines(tmp_path_factory.mktemp("ray"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        try:
            yield machines
        finally:
            machines.close()


SLURM_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
SLURM_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,requeue_delay=0
KillWait=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of one node with all of this machine's CPUs."""
    with _slurm(tmp_path_factory.mktemp("slurm"), {"n1": os.cpu_count() or 1}):
        yield


@pytest.fixture
def slurm_of_two(tmp_path: Path) -> Iterator[None]:
    """A Slurm of two nodes with a CPU each: two daemons on this machine."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    with _slurm(folder, {"n1": 1, "n2": 1}):
        yield


@contextmanager
def _slurm(folder: Path, nodes: dict[str, int]) -> Iterator[None]:
    missing = [name for name in SLURM_PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"Slurm is not installed here ({', '.join(missing)}): apt-get install slurm-wlm")
    if os.geteuid() != 0:
        pytest.skip("a private Slurm needs root, since slurmd starts jobs as their users")
    for name in ("state", *(f"spool-{node}" for node in nodes)):
        (folder / name).mkdir()
    host, conf = socket.gethostname(), folder / "slurm.conf"
    lines = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} CPUs={cpus} RealMemory=2000 "
        "State=UNKNOWN\n"
        for node, cpus in nodes.items()
    ]
    text = SLURM_CONFIGURATION.format(host=host, controller=_free_port(), folder=folder)
    conf.write_text(text.replace("PartitionName", "".join(lines) + "PartitionName"))
    commands = [["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", node] for node in nodes)]
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("SLURM_CONF", str(conf))
        daemons = [
            subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True) for words in commands
        ]
        try:
            _wait_for_idle(folder, len(nodes))
            yield
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_idle(folder: Path, nodes: int) -> None:
    end = time.monotonic() + 30
    while True:
        told = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%T"], capture_output=True, text=True, check=False
        )
        if told.stdout.split().count("idle") == nodes:
            return
        if time.monotonic() > end:
            pytest.skip(f"Slurm does not start here: {(folder / 'log').read_text()[-300:]}")
        time.sleep(0.2)
