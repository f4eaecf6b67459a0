"""Examples of the service's answers and bodies, put into its OpenAPI; a test holds them against the models."""

from typing import Any

SUMMARY: dict[str, Any] = {
    "id": "night", "name": "night", "state": "running", "reason": None, "data": "digits", "model": "yolov5n",
    "created": 1790000000.0, "updated": 1790000360.5, "planned": 20, "asked": 3, "finished": 1, "failed": 1,
    "cut": 0, "running": 1, "epochs": 5, "best": {"trial": 0, "fitness": 0.412}, "start_fitness": 0.412,
    "job": "night",
}  # fmt: skip
TRIAL: dict[str, Any] = {
    "id": 0, "state": "finished", "fitness": 0.412, "epoch": 5, "config": {"lr0": 0.01, "mosaic": 1.0},
    "origin": {"kind": "start", "parents": []}, "attempt": 0, "asked": 1790000001.0, "seconds": 61.5, "reason": None,
    "updated": 1790000063.0,
}  # fmt: skip
EVOLUTION: dict[str, Any] = {
    **SUMMARY,
    "genes": [
        {"name": "lr0", "low": 1e-5, "high": 0.1, "start": 0.01, "log": True, "integer": False, "choices": None}
    ],
    "trials": [TRIAL],
    "winner": {
        "trial": 0, "fitness": 0.412, "low": None, "high": None, "runs": 1, "epochs": 5,
        "confirmed": False, "words": "Not confirmed: fitness 0.4120 after one training of 5 epochs.",
        "config": {"lr0": 0.01, "mosaic": 1.0},
    },
    "anchors": {"levels": [[[10.0, 13.0]], [[30.0, 61.0]]], "bpr_before": 0.97, "bpr_after": 0.999},
    "offset": 4096,
}  # fmt: skip
FIT_ID = "3f2b8c1e9d7a4c55b0a1f6e2d3c4b5a6"
FIGURES = {"bpr": 0.999, "fitness": 0.74, "above": 3.1}
FIT: dict[str, Any] = {
    "id": FIT_ID, "state": "done", "position": None, "error": None,
    "result": {
        "anchors": [[[10.2, 14.1]], [[31.0, 60.5]]], "model_anchors": [[[10.0, 13.0]], [[30.0, 61.0]]],
        "strides": [8, 16], "before": {"bpr": 0.97, "fitness": 0.69, "above": 2.8}, "after": FIGURES, "boxes": 2,
        "image_size": 640, "threshold": 4.0, "target_bpr": 0.98, "seconds": 0.4,
        "density": {"log2_w_edges": [3.0, 4.0, 5.0], "log2_h_edges": [3.0, 4.0], "counts": [[2, 0]]}, "notes": [],
    },
}  # fmt: skip
WAITING = {"id": FIT_ID, "state": "waiting", "position": 2, "error": None, "result": None}
REFUSAL = {"error": "there is no evolution 'day'", "where": None}

ANSWERS: dict[str, Any] = {
    "get /health": {"status": "ok", "version": "0.1.0"},
    "get /ready": {"ready": True, "checks": {"runs": "ok", "mlflow": "not used by the service"}},
    "get /choices": {
        "places": ["local", "slurm"],
        "models": ["yolov5n", "yolov5s"],
        "searches": ["genetic", "tpe", "cmaes"],
    },
    "get /metrics": 'beagle_evolutions{state="running"} 1.0\n',
    "get /evolutions": {"evolutions": [SUMMARY]},
    "post /evolutions": {"id": "night", "job": "night"},
    "get /evolutions/{run_id}": EVOLUTION,
    "get /evolutions/{run_id}/trials/{trial}": {
        **TRIAL,
        "curve": [{"epoch": 0, "metrics": {"fitness": 0.1, "map50": 0.2}}],
    },
    "get /evolutions/{run_id}/events": 'event: epoch\ndata: {"trial": 0, "epoch": 1, "metrics": {}}\n\n',
    "post /evolutions/{run_id}/stop": {"id": "night", "state": "running", "asked": "4711 on box"},
    "get /evolutions/{run_id}/report": "<!doctype html>…",
    "post /anchors": FIT,
    "get /anchors/{fit_id}": FIT,
}
BODIES: dict[str, dict[str, Any]] = {
    "post /evolutions": {
        "application/json": {
            "data": "digits", "name": "night", "model": "yolov5n", "trials": 20, "epochs": 5, "image_size": 64,
        },
    },
    "post /anchors": {
        "application/json": {"path": "digits", "model": "yolov5n", "image_size": 640},
        "multipart/form-data": {"file": "w,h\n10,13\n16,30\n", "model": "yolov5s", "image_size": 640},
    },
}  # fmt: skip


def add_examples(schema: dict[str, Any]) -> None:
    """Put the examples into an OpenAPI document, in place."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            for status, response in operation["responses"].items():
                for kind, content in response.get("content", {}).items():
                    if where == "get /ready" and status == "503":
                        content["example"] = {"ready": False, "checks": {"runs": "/runs can't be written"}}
                    elif not status.startswith("2"):
                        content.setdefault("example", REFUSAL)
                    elif status == "202" and "anchors" in path:
                        content["example"] = WAITING
                    elif kind != "application/zip":
                        content["example"] = ANSWERS[where]
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                content["example"] = BODIES[where][kind]
