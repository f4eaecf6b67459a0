"""What a machine can train on, found out by training on it for two steps."""

import time
from dataclasses import dataclass

import torch

from model import build
from model.gains import LossGains
from model.loss import DetectionLoss
from trainer.prepare import choose_device, choose_precision, place

_IMAGE_PX = 64
_BATCH = 2


@dataclass(frozen=True)
class DeviceReport:
    """One device, and what two training steps on it came to.

    Attributes:
        device: Its name as `--device` takes it.
        name: What its maker calls it.
        memory_gb: Of a GPU, in 1e9 bytes; None for the CPU.
        precision: Type that `--amp auto` computes in.
        step_ms: Of the second step of a yolov5n on two images of 64 px: a sign of life, no benchmark.
        fault: Why it can't be trained on; None where it can.
    """

    device: str
    name: str
    memory_gb: float | None
    precision: str
    step_ms: float | None
    fault: str | None


def survey() -> list[DeviceReport]:
    """The CPU and every CUDA device, each tried by two training steps."""
    return [_try(name) for name in ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))]


def _try(device_name: str) -> DeviceReport:
    device = choose_device(device_name)
    cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if cuda else None
    precision = choose_precision("auto", device)
    step_ms, fault = None, None
    try:
        step_ms = _step_ms(device, precision)
    except (RuntimeError, ArithmeticError) as error:  # how torch reports drivers, kernels and memory
        fault = " ".join(str(error).split())[:200]
    return DeviceReport(
        device=device_name,
        name=properties.name if properties else f"{torch.get_num_threads()} threads",
        memory_gb=properties.total_memory / 1e9 if properties else None,
        precision=str(precision or torch.float32).removeprefix("torch."),
        step_ms=step_ms,
        fault=fault,
    )


def _step_ms(device: torch.device, precision: torch.dtype | None) -> float:
    """Milliseconds of the second of two steps.

    Raises:
        RuntimeError: The device does not do what it is told.
        ArithmeticError: The loss is no number.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = place(build("yolov5n", classes=2), device)
    loss = DetectionLoss(detector, LossGains())
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01, foreach=True)
    images = torch.full((_BATCH, 3, _IMAGE_PX, _IMAGE_PX), 0.5, device=device)
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5], [1, 0, 0.3, 0.3, 0.2, 0.3]], device=device)
    took = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            predictions = detector(images)
        total, _ = loss([level.float() for level in predictions], targets)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        value = float(total.detach())  # waits for the device
        took = 1e3 * (time.perf_counter() - begun)
        if not value > 0:
            raise ArithmeticError(f"the loss of a first step must be positive, but got {value}")
    return took
