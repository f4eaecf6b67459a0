"""Two trainings at once on few cores: do they run as fast as they should?

Each case starts one or two processes that train yolov5n steps on made-up batches, and gives the seconds per step. The
ratio that matters: two trials at once, with the environment that Beagle's workers get, beside one alone with
that same environment. The last two rows show what happens without it: PyTorch's own thread count, with
threads that spin while they wait.

    python benchmarks/concurrent_trials.py
"""

import json
import os
import subprocess
import sys
import time

import torch

from evolve.ray_session import worker_environment
from model import build
from model.loss import DetectionLoss, LossGains

STEPS = 12
SIZE = 128
BATCH = 16
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")


def worker() -> None:
    detector = build("yolov5n", classes=10).train()
    loss = DetectionLoss(detector, LossGains().scaled(10, SIZE, 3))
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    targets = torch.tensor([[image, image % 10, 0.5, 0.5, 0.3, 0.4] for image in range(BATCH)])
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        total, _ = loss(detector(images), targets)
        total.backward()
        seconds.append(time.perf_counter() - began)
    print(json.dumps(sorted(seconds[2:])[len(seconds[2:]) // 2]))


def run(count: int, variables: dict[str, str]) -> float:
    """Median seconds per step, the slowest of `count` processes."""
    clean = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    command = [sys.executable, __file__, "worker"]
    processes = [
        subprocess.Popen(command, env=clean | variables, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    return max(float(process.communicate()[0]) for process in processes)


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    ours = worker_environment(1)
    spinning = worker_environment(cores) | {"OMP_WAIT_POLICY": "ACTIVE"}
    alone = run(1, ours)
    cases = [
        ("one trial, 1 CPU, Beagle's environment", alone),
        ("two trials, 1 CPU each, Beagle's environment", run(2, ours)),
        (f"two trials, {cores} threads each, waiting passively", run(2, worker_environment(cores))),
        ("two trials, PyTorch's own settings", run(2, {})),
        (f"two trials, {cores} threads each, spinning", run(2, spinning)),
    ]
    print(f"{cores} cores, yolov5n, {SIZE} px, batch {BATCH}")
    print(f"{'case':55} {'s per step':>10} {'ratio':>7}")
    for name, seconds in cases:
        print(f"{name:55} {seconds:10.3f} {seconds / alone:7.2f}")


if __name__ == "__main__":
    worker() if sys.argv[1:] == ["worker"] else main()
