"""A trainer of nobody's: a quadratic, told in whatever way its first argument says."""

import json
import sys
import time
from pathlib import Path

way, target, epochs, x = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rows = []
for epoch in range(epochs):
    score = (1 - (x - 0.7) ** 2) * (epoch + 1) / epochs
    rows.append({"epoch": epoch + 1, "val": {"score": score, "loss": 1 - score}})
    if way == "jsonl":
        with target.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    elif way == "json":
        target.write_text(json.dumps({"history": rows}))
    elif way == "log":
        print(f"\rEpoch {epoch + 1}/{epochs} score={score:.6f} loss={1 - score:.3e}", flush=True)
    elif way == "mlflow":
        import mlflow

        mlflow.log_metric("score", score, step=epoch)
    time.sleep(0.01)
if way == "silent":
    time.sleep(600)
if way == "full":
    sys.exit("OSError: [Errno 28] No space left on device")
print("done")
