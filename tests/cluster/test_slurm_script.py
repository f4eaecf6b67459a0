"""The batch script, compared whole, and read by bash itself."""

import subprocess
from pathlib import Path

import pytest

from cluster.slurm_script import SlurmSettings, sbatch_script
from cluster.spec import ClusterError, JobSpec, Resources

JOB = Path("/shared/runs/jobs/night shift")
SPEC = JobSpec(
    ("evolve", "it's data.yaml", "--resume", "--out", "/shared/runs/night"),
    Path("/shared/team"),
    "night",
    resources=Resources(nodes=3, cpus=16, gpus=4, memory_gb=100.5, hours=11.99),
    retries=1,
)
SETTINGS = SlurmSettings(partition="gpu", account="vision", setup="module load cuda")

EXPECTED = """\
#!/bin/bash
#SBATCH --job-name=night
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --mem=102912M
#SBATCH --time=720
#SBATCH --partition=gpu
#SBATCH --account=vision
#SBATCH --output="/shared/runs/jobs/night shift/output.log"
#SBATCH --open-mode=append
#SBATCH --chdir=/shared/team
#SBATCH --export=ALL
#SBATCH --signal=B:USR1@120
#SBATCH --requeue

set -uo pipefail
umask 077
python=/opt/beagle/bin/python
job='/shared/runs/jobs/night shift'
again=no
child=
rm -f "$job/exit"

ended() {
    code=$?
    trap - EXIT
    background=$(jobs -p)
    [ -z "$background" ] || kill $background 2>/dev/null
    if [ "$again" = yes ] && [ ! -e "$job/stop" ]; then
        echo "the job's time is nearly up: it is put into the queue again and goes on from there" >&2
        scontrol requeue "$SLURM_JOB_ID" && exit 0
    fi
    printf '%s %s\\n' "$code" "$(date +%s)" > "$job/.exit" && mv "$job/.exit" "$job/exit"
    exit "$code"
}
interrupt() {
    [ -z "$child" ] || kill -INT "$child" 2>/dev/null
}
trap ended EXIT
trap 'again=yes; interrupt' USR1
trap interrupt TERM INT
module load cuda

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$("$python" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname --all-ip-addresses | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))
srun --overlap --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
--nodes=1 --ntasks=1 --nodelist="$head" \\
    "$python" -P -m cluster.ray_node start --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus=4 --head \
--node-ip-address="$address" --port="$port" >> "$job/ray.log" 2>&1 &
srun --overlap --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
--nodes=2 --ntasks=2 --exclude="$head" \\
    "$python" -P -m cluster.ray_node start --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus=4 \
--address="$address:$port" >> "$job/ray.log" 2>&1 &
"$python" -P -m cluster.ray_node wait "$address:$port" 3 || exit 1
export BEAGLE_RAY_ADDRESS="$address:$port"

"$python" -P -u -m cluster.attempts 1 evolve 'it'"'"'s data.yaml' --resume --out /shared/runs/night &
child=$!
# A signal ends a wait before the command has ended: wait until there is nothing to wait for.
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
exit "$code"
"""


def test_the_script_of_an_evolution_on_three_nodes_is_this() -> None:
    assert sbatch_script(SPEC, SETTINGS, JOB, "/opt/beagle/bin/python") == EXPECTED


def test_a_command_that_is_no_evolution_starts_no_ray_cluster() -> None:
    script = sbatch_script(JobSpec(("train", "digits"), Path("/here")), SlurmSettings(), JOB, "python")
    assert "ray_node" not in script
    assert "cluster.attempts 2 train digits &" in script
    assert "--gpus-per-node" not in script
    assert "--time" not in script


def test_one_node_stays_on_its_own_address() -> None:
    script = sbatch_script(JobSpec(("evolve", "digits"), Path("/here")), SlurmSettings(), JOB, "python")
    assert "\naddress=127.0.0.1\n" in script
    assert "hostname --all-ip-addresses" not in script


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("words", [("evolve", "a'b\"c $(touch x) `d`"), ("data", "check", "a; b")])
def test_bash_reads_the_script_and_no_word_is_run_by_it(nodes: int, words: tuple[str, ...]) -> None:
    spec = JobSpec(words, Path("/here"), resources=Resources(nodes=nodes))
    script = sbatch_script(spec, SlurmSettings(), JOB, "py thon")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    line = next(line for line in script.splitlines() if "cluster.attempts" in line)
    told = subprocess.run(
        [
            "bash",
            "-c",
            f"python=printf\nprintf '%s\\n' {line.partition('cluster.attempts ')[2].removesuffix(' &')}",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.splitlines() == ["2", *words]


def test_generic_resources_stand_for_gpus_and_a_percent_sign_for_itself() -> None:
    spec = JobSpec(("train", "digits"), Path("/here"), resources=Resources(gpus=4))
    script = sbatch_script(spec, SlurmSettings(gres="gpu:a100:4"), Path("/jobs/100%j"), "python")
    assert "#SBATCH --gres=gpu:a100:4" in script
    assert "--gpus-per-node" not in script
    assert "#SBATCH --output=/jobs/100%%j/output.log" in script


def test_an_unknown_setting_names_the_nearest_one() -> None:
    with pytest.raises(ClusterError, match="no setting 'partitions' here: did you mean partition"):
        SlurmSettings.from_dict({"partitions": "gpu"})
    with pytest.raises(ClusterError, match="must be one line of text"):
        SlurmSettings.from_dict({"setup": "module load cuda\nrm -r ."})
