"""Images per second of the training step, beside a plain eager loop in the published order of YOLOv5's.

Run as `python -m benchmarks.training_step [--model yolov5n] [--image-size 320] [--batch 8] [--threads 2]`.

The plain loop: images to float in the usual layout, forward, loss, backward, clipping, an optimiser that goes tensor
by tensor, a moving average that goes tensor by tensor over both state dicts, and the loss read from the device after
each batch. Ours is `trainer.epoch` as it trains. Both take the same batches from the same initial weights, in turns,
so that what else the machine does falls on both; medians of the turns. On a busy machine only the CPU time (of all
threads) says much; on an idle one both columns agree.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataset import load
from model.spec import load_spec
from trainer import TrainConfig
from trainer.ema import decay_at
from trainer.epoch import learn, take_step
from trainer.evaluate import to_input
from trainer.optim import apply_step, parameter_groups
from trainer.prepare import build_detector, build_loss
from trainer.run_folder import RunFolder
from trainer.session import Job, Session, start

Batches = list[dict[str, torch.Tensor]]


def plain_loop(session: Session) -> Callable[[dict[str, torch.Tensor]], float]:
    """One step of the plain loop, with state of its own."""
    hyp = session.config.hyp
    detector = build_detector(session.detector.spec, session.config.seed).train()
    loss = build_loss(detector, session.config, session.image_size)
    average = copy.deepcopy(detector).eval()
    groups = [
        {"name": name, "params": params, "weight_decay": hyp.weight_decay * (name == "weight")}
        for name, params in parameter_groups(detector).items()
    ]
    optimizer = torch.optim.SGD(groups, lr=hyp.lr0, momentum=hyp.momentum, nesterov=True, foreach=False)
    updates = 0

    def step(batch: dict[str, torch.Tensor]) -> float:
        nonlocal updates
        images = batch["images"].float() / 255
        raw = detector(images)
        total, _ = loss(raw, batch["targets"])
        total.backward()
        apply_step(optimizer, session.schedule.at(1000))
        nn.utils.clip_grad_norm_(detector.parameters(), 10.0, foreach=False)
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        decay = decay_at(updates)
        current = detector.state_dict()
        with torch.no_grad():
            for name, kept in average.state_dict().items():
                if kept.is_floating_point():
                    kept.mul_(decay).add_(current[name].detach(), alpha=1 - decay)
        return float(total.item())

    return step


def our_loop(session: Session) -> Callable[[dict[str, torch.Tensor]], Any]:
    """One step as `trainer.epoch` takes it."""
    session.detector.train()

    def step(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        total, _ = learn(session, to_input(batch["images"], session.device), batch["targets"], waits=False)
        take_step(session, session.schedule.at(1000))
        return total

    return step


def build_session(arguments: argparse.Namespace, out: Path, amp: str) -> Session:
    config = TrainConfig(
        data="digits",
        model=arguments.model,
        out=out,
        epochs=100,
        batch_size=arguments.batch,
        image_size=arguments.image_size,
        optimizer="sgd",
        anchors="keep",
        device="cpu",
        amp=amp,
    )
    dataset = load("digits")
    job = Job(config=config, dataset=dataset, base=load_spec(arguments.model, classes=len(dataset.names)))
    return start(job, RunFolder(out), None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="yolov5n")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        sessions = [build_session(arguments, Path(folder) / amp, amp) for amp in ("off", "bf16")]
        batches = [batch for batch, _ in zip(sessions[0].train_loader, range(4), strict=False)]
        loops = {
            "plain eager loop": plain_loop(sessions[0]),
            "ours": our_loop(sessions[0]),
            "ours, --amp bf16": our_loop(sessions[1]),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
        losses = {name: float(step(batches[0])) for name, step in loops.items()}
        for turn in range(arguments.turns):
            for name, step in loops.items():
                wall, cpu = time.perf_counter(), time.process_time()
                step(batches[turn % len(batches)])
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print(
        f"{arguments.model}, {arguments.image_size} px, batch {arguments.batch}, {arguments.threads} threads, "
        f"{arguments.turns} turns"
    )
    print(f"{'':20} {'ms':>7} {'images/s':>9} {'ratio':>6} {'CPU ms':>7} {'ratio':>6} {'first loss':>11}")
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in times.items()
    }
    plain = medians["plain eager loop"]
    for name, (wall, cpu) in medians.items():
        print(
            f"{name:20} {1000 * wall:7.0f} {arguments.batch / wall:9.1f} {plain[0] / wall:6.2f} "
            f"{1000 * cpu:7.0f} {plain[1] / cpu:6.2f} {losses[name]:11.6f}"
        )


if __name__ == "__main__":
    main()
