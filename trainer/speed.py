"""What a trained detector costs in production: time for an image, and parameters."""

import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from model.fuse import fuse
from trainer.predict import load_detector
from trainer.prepare import choose_device, choose_precision, place

_WARM = 5
_TIMES = 25


def measure_costs(checkpoint: str | Path, names: Iterable[str], device: str = "auto") -> dict[str, float]:
    """Measure what a search with several objectives weighs against fitness.

    Args:
        checkpoint: Of a training.
        names: "latency" (the median of 25 passes of the fused model, one image at a time, in ms; without reading,
            scaling and suppression) and "parameters" (trainable ones). With the latency comes "latency_spread": the
            middle half of the passes lies within so many ms.
        device: As `TrainConfig` has it; what else runs there meanwhile counts in.

    Raises:
        TrainError: The checkpoint can't be read, or there is no such device.
    """
    wanted = set(names)
    where = choose_device(device)
    detector, _, image_size = load_detector(checkpoint, where)
    costs: dict[str, float] = {}
    if "parameters" in wanted:
        costs["parameters"] = float(sum(each.numel() for each in detector.parameters()))
    if "latency" in wanted:
        precision = choose_precision("auto", where)
        fused = place(fuse(detector), where)
        image = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(where)
        with torch.inference_mode(), torch.autocast(where.type, precision, enabled=precision is not None):
            times = [_milliseconds(fused, image) for _ in range(_WARM + _TIMES)][_WARM:]
        low, middle, high = statistics.quantiles(times, n=4)
        costs |= {"latency": middle, "latency_spread": high - low}
    return costs


def _milliseconds(detector: torch.nn.Module, image: torch.Tensor) -> float:
    began = time.perf_counter()
    detector(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return 1e3 * (time.perf_counter() - began)
