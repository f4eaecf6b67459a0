"""A job as a Slurm batch script: a pure function of what is asked for.

An evolution gets a Ray cluster inside its allocation: a head on the first node, a worker on each other one, joined by
a token that is made when the job starts and stands in no file. Half of what can happen to a job is told apart here:

- its time is nearly up (SIGUSR1, `GRACE_S` seconds before): the command is interrupted, which leaves its running
  trials open, and the job is put into the queue again; it goes on from the checkpoints;
- it is pre-empted or its node fails: Slurm puts it into the queue again by itself;
- it is asked to stop (SIGTERM by `beagle jobs stop`): interrupted, and not queued again.
"""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from cluster.record import STOP
from cluster.settings import Settings
from cluster.spec import JobSpec

GRACE_S = 120
LOG, RAY_LOG, EXIT = "output.log", "ray.log", "exit"
EVOLUTIONS = ("evolve", "resume")


@dataclass(frozen=True)
class SlurmSettings(Settings):
    """What a cluster's users are told to give; empty leaves it to Slurm.

    Attributes:
        partition: Queue.
        account: Who pays.
        qos: Quality of service.
        constraint: Features that nodes must have.
        gres: Generic resources per node, where the site counts its GPUs so (`gpu:a100:4`).
        setup: One shell line that is run first, `module load cuda` for example.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""
    setup: str = ""


def sbatch_script(spec: JobSpec, settings: SlurmSettings, job: Path, python: str) -> str:
    """The batch script of a job.

    Args:
        spec: The job.
        settings: Of the cluster.
        job: Absolute folder of the job, on storage that all nodes share.
        python: Absolute path of the interpreter that has Beagle, on the nodes.

    Returns:
        Text for `sbatch`.
    """
    ray = spec.words[0] in EVOLUTIONS
    parts = [_header(spec, settings, job), _start(spec, settings, job, python)]
    if ray:
        parts.append(_ray(spec))
    parts.append(_command(spec))
    return "\n".join(parts)


def _header(spec: JobSpec, settings: SlurmSettings, job: Path) -> str:
    asked = spec.resources
    options: list[tuple[str, object]] = [
        ("job-name", spec.name),
        ("nodes", asked.nodes),
        ("ntasks-per-node", 1),
        ("cpus-per-task", asked.cpus or 1),
    ]
    if settings.gres:
        options.append(("gres", settings.gres))
    elif asked.gpus:
        options.append(("gpus-per-node", asked.gpus))
    if asked.memory_gb is not None:
        options.append(("mem", f"{math.ceil(asked.memory_gb * 1024)}M"))
    if asked.hours is not None:
        options.append(("time", max(math.ceil(asked.hours * 60), 1)))
    options += [
        (name, value)
        for name in ("partition", "account", "qos", "constraint")
        if (value := getattr(settings, name))
    ]
    options += [
        ("output", str(job / LOG).replace("%", "%%")),
        ("open-mode", "append"),
        ("chdir", spec.folder),
        ("export", "ALL"),
        ("signal", f"B:USR1@{GRACE_S}"),
    ]
    lines = [f"#SBATCH --{name}={_quoted(str(value))}" for name, value in options]
    return "\n".join(["#!/bin/bash", *lines, "#SBATCH --requeue", ""])


def _quoted(value: str) -> str:
    """As sbatch reads it: quoted where it holds blanks."""
    return f'"{value}"' if any(mark.isspace() for mark in value) else value


def _start(spec: JobSpec, settings: SlurmSettings, job: Path, python: str) -> str:
    return f"""\
set -uo pipefail
umask 077
python={shlex.quote(python)}
job={shlex.quote(str(job))}
again=no
child=
rm -f "$job/{EXIT}"

ended() {{
    code=$?
    trap - EXIT
    background=$(jobs -p)
    [ -z "$background" ] || kill $background 2>/dev/null
    if [ "$again" = yes ] && [ ! -e "$job/{STOP}" ]; then
        echo "the job's time is nearly up: it is put into the queue again and goes on from there" >&2
        scontrol requeue "$SLURM_JOB_ID" && exit 0
    fi
    printf '%s %s\\n' "$code" "$(date +%s)" > "$job/.{EXIT}" && mv "$job/.{EXIT}" "$job/{EXIT}"
    exit "$code"
}}
interrupt() {{
    [ -z "$child" ] || kill -INT "$child" 2>/dev/null
}}
trap ended EXIT
trap 'again=yes; interrupt' USR1
trap interrupt TERM INT
{settings.setup or ":"}
"""


def _ray(spec: JobSpec) -> str:
    nodes, gpus = spec.resources.nodes, spec.resources.gpus
    start = (
        f'"$python" -P -m cluster.ray_node start --num-cpus="${{SLURM_CPUS_PER_TASK:-1}}" --num-gpus={gpus}'
    )
    step = 'srun --overlap --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}"'
    address = (
        'address=127.0.0.1\nport=$("$python" -P -m cluster.ray_node port)\n'
        if nodes == 1
        else 'address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname --all-ip-addresses'
        " | awk '{print $1}')\nport=$((20000 + SLURM_JOB_ID % 20000))\n"
    )
    workers = (
        f"""\
{step} --nodes={nodes - 1} --ntasks={nodes - 1} --exclude="$head" \\
    {start} --address="$address:$port" >> "$job/{RAY_LOG}" 2>&1 &
"""
        if nodes > 1
        else ""
    )
    return f"""\
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$("$python" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
{address}\
{step} --nodes=1 --ntasks=1 --nodelist="$head" \\
    {start} --head --node-ip-address="$address" --port="$port" >> "$job/{RAY_LOG}" 2>&1 &
{workers}\
"$python" -P -m cluster.ray_node wait "$address:$port" {nodes} || exit 1
export BEAGLE_RAY_ADDRESS="$address:$port"
"""


def _command(spec: JobSpec) -> str:
    words = shlex.join([str(spec.retries), *spec.words])
    return f"""\
"$python" -P -u -m cluster.attempts {words} &
child=$!
# A signal ends a wait before the command has ended: wait until there is nothing to wait for.
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
exit "$code"
"""
