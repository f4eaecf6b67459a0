"""Seconds from a trial's start to its first step, on a warm label cache, and where they go.

Run as `python -m benchmarks.startup [DATA]`; DATA is `digits` by default. Each figure is the median of several fresh
processes. A trial's worker that is used again has its imports done; what is left is the line "without imports".
"""

import json
import statistics
import subprocess
import sys
import tempfile

RUNS = 5
CHILD = """
import json, sys, time
began = time.perf_counter()
import trainer.loop
imported = time.perf_counter()
from trainer import TrainConfig, train

class FirstStep(Exception):
    pass

def progress(what, done, total):
    if what == "train":
        raise FirstStep

config = TrainConfig(data=sys.argv[1], model="yolov5n", out=sys.argv[2], epochs=1, batch_size=16, image_size=160,
                     threads=1, device="cpu", anchors="keep")
try:
    train(config, progress=progress)
except FirstStep:
    done = time.perf_counter()
    heavy = [name for name in ("matplotlib", "faster_coco_eval", "ray", "mlflow", "sklearn") if name in sys.modules]
    print(json.dumps([imported - began, done - imported, heavy]))
"""


def main() -> None:
    data = sys.argv[1] if len(sys.argv) > 1 else "digits"
    figures = []
    for run in range(RUNS + 1):
        with tempfile.TemporaryDirectory() as folder:
            said = subprocess.run(
                [sys.executable, "-c", CHILD, data, f"{folder}/out"],
                check=True,
                capture_output=True,
                text=True,
            )
        if run:  # the first warms the caches
            figures.append(json.loads(said.stdout.splitlines()[-1]))
    imports, rest = (statistics.median(row[column] for row in figures) for column in (0, 1))
    print(f"{data}: yolov5n, 160 px, batch 16, 1 thread, medians of {RUNS} processes")
    print(f"imports                                    {imports:6.2f} s")
    print(f"from there to the end of the first step    {rest:6.2f} s   (without imports)")
    print(f"all                                        {imports + rest:6.2f} s")
    print(f"heavy packages imported on the way: {', '.join(figures[0][2]) or 'none'}")


if __name__ == "__main__":
    main()
