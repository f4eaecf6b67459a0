"""Stands in for YOLOv5's train.py: its options, its files, the widths of its columns, its ways of ending.

It learns nothing: its mAP is a function of the hyperparameters that it read, so a test can tell whether they arrived.
Behaviour on demand by the model's name: "slow.pt", "crash.pt" (once, in epoch 2), "broken.pt" (always), "oom.pt"
(with a batch over 4), "nan.pt", "child.pt" (leaves a child process), "stubborn.pt" (does not hear SIGTERM).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

KEYS = [
    *("train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall"),
    *("metrics/mAP_0.5", "metrics/mAP_0.5:0.95", "val/box_loss", "val/obj_loss", "val/cls_loss"),
    *("x/lr0", "x/lr1", "x/lr2"),
]
NEEDED = """lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr box cls cls_pw obj obj_pw iou_t
anchor_t fl_gamma hsv_h hsv_s hsv_v degrees translate scale shear perspective flipud fliplr mosaic mixup copy_paste"""


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="yolov5s.pt")
    parser.add_argument("--data")
    parser.add_argument("--hyp")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--resume", nargs="?", const=True, default=False)
    parser.add_argument("--device", default="")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", default="runs/train")
    parser.add_argument("--name", default="exp")
    parser.add_argument("--exist-ok", action="store_true")
    return parser.parse_args()


def main():
    opt = options()
    first = 0
    if opt.resume:
        last = Path(opt.resume)
        run = last.parent.parent
        opt = argparse.Namespace(**yaml.safe_load((run / "opt.yaml").read_text()))
        first = json.loads(last.read_text())["epoch"] + 1
        assert 0 < first < opt.epochs, f"training to {opt.epochs} epochs is finished, nothing to resume"
    else:
        run = Path(opt.project) / opt.name
        (run / "weights").mkdir(parents=True)
    hyp = yaml.safe_load(Path(opt.hyp).read_text())
    missing = [key for key in NEEDED.split() if key not in hyp]
    assert not missing, f"KeyError: {missing}"
    (run / "hyp.yaml").write_text(yaml.safe_dump(hyp, sort_keys=False))
    (run / "opt.yaml").write_text(yaml.safe_dump(vars(opt), sort_keys=False))
    (run / "seen.json").write_text(
        json.dumps({"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()})
    )
    train(opt, run, hyp, first, Path(opt.weights).stem)


def train(opt, run, hyp, first, kind):
    if kind == "oom" and opt.batch_size > 4:
        print("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
        sys.exit(1)
    if kind == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(run)])
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    best = -1.0
    for epoch in range(first, opt.epochs):
        time.sleep(0.5 if kind in ("slow", "child", "stubborn") else 0.02)
        print(f"\r{epoch}/{opt.epochs - 1}  {epoch / opt.epochs:.0%}", end="", flush=True)
        with (run / "ran.txt").open("a") as ran:
            ran.write(f"{epoch}\n")
        if (kind == "crash" and epoch == 2 and first == 0) or kind == "broken":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        fitness = max(0.0, 1 - abs(hyp["lr0"] - 0.03) * 10) * (epoch + 1) / opt.epochs
        fitness = float("nan") if kind == "nan" and epoch > 0 else fitness
        values = [
            0.1 / (epoch + 1),
            0.05,
            0.02,
            0.5,
            0.6,
            fitness,
            fitness / 2,
            0.1,
            0.05,
            0.02,
            *[hyp["lr0"]] * 3,
        ]
        head = (
            ""
            if (run / "results.csv").exists()
            else ("%20s," * 14 % tuple(["epoch", *KEYS])).rstrip(",") + "\n"
        )
        with (run / "results.csv").open("a") as file:
            file.write(head + ("%20.5g," * 14 % tuple([epoch, *values])).rstrip(",") + "\n")
        (run / "weights" / "last.pt").write_text(json.dumps({"epoch": epoch}))
        if fitness > best:
            best = fitness
            (run / "weights" / "best.pt").write_text(json.dumps({"epoch": epoch}))
    for name in ("last.pt", "best.pt"):  # stripped: such a checkpoint can't be resumed
        if (run / "weights" / name).exists():
            (run / "weights" / name).write_text(json.dumps({"epoch": -1}))
    print(f"\n{opt.epochs - first} epochs completed in 0.001 hours.\nResults saved to {run}")


if __name__ == "__main__":
    main()
