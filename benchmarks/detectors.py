"""How fast are the detectors, forward and training step, as they are and with what can be won?

For each model at its usual image: images per second of `forward` (eval mode, no gradients) and of a whole training
step (forward, loss, backward, SGD), and the peak of memory of the process. Variants, each in a process of its own:
`eager` is the model as built, memory in planes; `channels-last` lays it out by pixels; `fused` (forward only) folds
norms into convolutions; `bf16` is automatic mixed precision; `compile` is torch.compile (`--compile`: needs a C++
compiler; its first calls take minutes and are not counted). The ratio is to `eager` in the same run. On one CPU
thread times are CPU times, so that busy neighbours don't count. With CUDA and `--peak-tflops`, `bound` is the share
of the time that the model's FLOPs would take at that peak.

Run: `python -m benchmarks.detectors [--models yolov5n yolov5s] [--variants eager fused] [--threads 1] [--batch 4]`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model import Detector, build
from model.loss import DetectionLoss, LossGains
from model.spec import load_spec

MODELS = ("yolov5n", "yolov5s", "yolov5m", "yolov3-tiny", "yolov4-tiny")
FORWARD = {
    "eager": (),
    "channels-last": ("last",),
    "fused": ("last", "fused"),
    "fused bf16": ("last", "fused", "bf16"),
    "fused compile": ("last", "fused", "compile"),
}
TRAINING = {
    "eager": (),
    "channels-last": ("last",),
    "channels-last bf16": ("last", "bf16"),
    "channels-last compile": ("last", "compile"),
}


def prepared(detector: Detector, options: tuple[str, ...], device: torch.device) -> nn.Module:
    if "fused" in options:
        detector = detector.fuse()
    detector = detector.to(device)
    if "last" in options:
        detector = detector.to(memory_format=torch.channels_last)
    return torch.compile(detector) if "compile" in options else detector


def targets_of(batch: int) -> Tensor:
    """Eight boxes an image, of many sizes."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(batch * 8, 4, generator=generator) * torch.tensor([1, 1, 0.3, 0.3]) + 0.01
    image = torch.arange(batch).repeat_interleave(8)[:, None].float()
    return torch.cat((image, torch.zeros_like(image), boxes.clamp(max=0.99)), 1)


def step_of(job: dict[str, Any], device: torch.device) -> Callable[[], None]:
    torch.manual_seed(0)
    detector = build(job["model"])
    options = tuple(job["options"])
    images = torch.rand(job["batch"], 3, job["size"], job["size"], device=device)
    if "last" in options:
        images = images.contiguous(memory_format=torch.channels_last)
    mixed = torch.autocast(device.type, torch.bfloat16) if "bf16" in options else nullcontext()
    if job["kind"] == "forward":
        module = prepared(detector.eval(), options, device)

        def forward() -> None:
            with torch.no_grad(), mixed:
                module(images)

        return forward
    module = prepared(detector.train(), options, device)
    gains = LossGains().scaled(detector.classes, job["size"], len(detector.strides))
    loss = DetectionLoss(detector, gains).to(device)
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-5, momentum=0.9)
    targets = targets_of(job["batch"]).to(device)

    def train() -> None:
        with mixed:
            raw = module(images)
        loss([level.float() for level in raw], targets)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def measure(job: dict[str, Any]) -> dict[str, float]:
    """In the child: the least seconds of a step, of so many, and the peak of memory, MB."""
    torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    cuda = device.type == "cuda"
    step = step_of(job, device)
    flops = 0
    if "compile" not in job["options"]:
        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
    clock = time.process_time if not cuda and job["threads"] == 1 else time.perf_counter
    seconds = []
    for turn in range(job["warm"] + job["repeats"]):
        if cuda:
            torch.cuda.synchronize()
        begin = clock()
        step()
        if cuda:
            torch.cuda.synchronize()
        if turn >= job["warm"]:
            seconds.append(clock() - begin)
    if cuda:
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": min(seconds), "memory": peak, "flops": flops, "images": job["batch"]}


def run_child(job: dict[str, Any]) -> dict[str, float] | None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.detectors", "--job", json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(
            f"({job['kind']}, {job['variant']}: {(done.stderr.strip().splitlines() or ['killed'])[-1][:150]})"
        )
        return None
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(options: argparse.Namespace, kind: str, variants: dict[str, tuple[str, ...]]) -> None:
    print(f"\n{kind}, batch {options.batch}, {options.device}, {options.threads} thread(s)\n")
    print("| model | image, px | variant | images/s | ratio | memory, MB | GFLOPs an image | bound |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    for model in options.models:
        size = options.size or load_spec(model).image_size
        base = None
        for variant, steps in variants.items():
            asked = not options.variants or set(options.variants) & set(variant.split())
            if not asked or ("compile" in steps and not options.compile):
                continue
            job = {"model": model, "kind": kind, "variant": variant, "options": steps, "size": size}
            job |= {
                name: getattr(options, name) for name in ("batch", "threads", "device", "repeats", "warm")
            }
            found = run_child(job)
            if found is None:
                continue
            rate = found["images"] / found["seconds"]
            base = base or rate
            gflops = found["flops"] / found["images"] / 1e9
            bound = (
                f"{gflops * rate / 1e3 / options.peak_tflops:.0%}" if options.peak_tflops and gflops else "-"
            )
            cells = [model, size, variant, f"{rate:.2f}", f"{rate / base:.2f}", f"{found['memory']:.0f}"]
            print(
                f"| {' | '.join(map(str, [*cells, f'{gflops:.1f}' if gflops else '-', bound]))} |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--variants", nargs="+", help="only those with one of these words")
    parser.add_argument("--size", type=int, help="px, in place of the usual")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm", type=int, default=2, help="steps before those that are measured")
    parser.add_argument(
        "--kinds", nargs="+", default=("forward", "training"), choices=("forward", "training")
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="the variants of torch.compile too")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for the column bound")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measure(json.loads(options.job))))
        return
    if "forward" in options.kinds:
        table(options, "forward", FORWARD)
    if "training" in options.kinds:
        table(options, "training step", TRAINING)


if __name__ == "__main__":
    main()
