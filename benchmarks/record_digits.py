"""Record real short trainings of a small detector on `digits`, for benchmarks that need a landscape that is real.

    python -m benchmarks.record_digits [--out benchmarks/data/digits.jsonl] [--until 360]

Every training appends one line of JSON: `index`, `kind`, `config` (the genes below), `seed`, `fitness` (None when it
diverged), `history` (fitness after each epoch) and `seconds`. A record that exists is never made again, so the
recording can be stopped and goes on where it was. What record n is follows from n and, for the refined ones, from
the records before it:

- `design`: a scrambled Sobol design over the whole space;
- `near`: a scrambled Sobol design over 0.35 of each gene's range around the start;
- `refined`: between two of the best twelve so far, with a little noise: without these the table would say least
  about the region that a search ends in;
- `repeat`: one of twelve configurations once more, under another seed of weights, order and augmentation: the noise.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from evolve import Gene, Space

if TYPE_CHECKING:
    from trainer import TrainConfig

SPACE = Space(
    [
        Gene("lr0", 1e-3, 0.3, start=0.01, log=True),
        Gene("lrf", 0.01, 1.0, start=0.1, log=True),
        Gene("momentum", 0.6, 0.98, start=0.937),
        Gene("box", 0.02, 0.2, start=0.05, log=True),
        Gene("cls", 0.5, 16.0, start=1.0, log=True),
        Gene("obj", 0.5, 50.0, start=4.0, log=True),
        Gene("anchor_t", 2.0, 8.0, start=4.0, log=True),
        Gene("degrees", 0.0, 45.0, start=0.0),
        Gene("translate", 0.0, 0.9, start=0.1),
        Gene("scale", 0.0, 0.9, start=0.5),
        Gene("mosaic", 0.0, 1.0, start=1.0),
        Gene("mixup", 0.0, 1.0, start=0.0),
    ]
)
"""Genes of the facts' table that matter in eight epochs. Gains reach higher than usual, since a training scales
them down with the image size, the classes and the levels."""

FIXED = {"warmup_epochs": 1.0, "fliplr": 0.0}
EPOCHS, IMAGE_SIZE, BATCH_SIZE = 8, 64, 8
REPEATED, REPEATS = 12, 5
CYCLE = ("design", "near", "design", "refined", "near", "refined", "repeat", "design", "refined")
FIRST_REPEAT = 60
MODEL = Path(__file__).parent / "data" / "small.yaml"


def plan(index: int, records: list[dict[str, Any]]) -> tuple[str, dict[str, float | int], int]:
    """What record `index` is: (kind, configuration, seed).

    Args:
        index: From 0; 0 is the start.
        records: Those before it.
    """
    if index == 0:
        return "start", SPACE.start, 0
    kind = CYCLE[index % len(CYCLE)]
    done = sum(record["kind"] == kind for record in records)
    if kind == "repeat" and (index < FIRST_REPEAT or done >= REPEATED * REPEATS):
        kind = "design"
        done = sum(record["kind"] == kind for record in records)
    if kind == "repeat":
        chosen = _repeated(records)[done % REPEATED]
        return kind, chosen["config"], 1 + done // REPEATED
    if kind == "refined" and index >= FIRST_REPEAT:
        return kind, SPACE.decode(_between(index, records)), 0
    if kind == "design":
        return kind, SPACE.decode(_sobol(done, 1)), 0
    start = SPACE.encode(SPACE.start)
    return "near", SPACE.decode(np.clip(start + 0.7 * (_sobol(index, 2) - 0.5), 0, 1)), 0


def _sobol(index: int, seed: int) -> NDArray[np.float64]:
    """Point `index` of a scrambled Sobol sequence (D,) in [0, 1]."""
    engine = qmc.Sobol(len(SPACE), rng=np.random.default_rng(seed))
    if index:
        engine.fast_forward(index)
    return np.asarray(engine.random(1)[0], dtype=np.float64)


def _repeated(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Twelve of the first records whose fitness spreads evenly from the median to the best."""
    first = [record for record in records[:FIRST_REPEAT] if record["fitness"] is not None]
    ranked = sorted(first, key=lambda record: -record["fitness"])
    picks = np.linspace(0, len(ranked) // 2, REPEATED).round().astype(int)
    return [ranked[pick] for pick in picks]


def _between(index: int, records: list[dict[str, Any]]) -> NDArray[np.float64]:
    """A point (D,) between two of the best, gene by gene, with normal noise of 0.05."""
    rng = np.random.default_rng([3, index])
    scored = [record for record in records if record["fitness"] is not None and record["seed"] == 0]
    best = sorted(scored, key=lambda record: -record["fitness"])[:12]
    first, second = (SPACE.encode(best[i]["config"]) for i in rng.choice(len(best), 2, replace=False))
    mixed = np.where(rng.random(len(SPACE)) < 0.5, first, second)
    return np.clip(mixed + rng.normal(0, 0.05, len(SPACE)), 0, 1)


def training(
    config: dict[str, float | int],
    seed: int,
    out: Path,
    epochs: int = EPOCHS,
    data: str = "digits",
    image_size: int = IMAGE_SIZE,
) -> "TrainConfig":
    """One training of the small detector; its anchors are those of `digits`, and are refitted to other data."""
    from trainer import Hyperparameters, TrainConfig

    return TrainConfig(
        data=data,
        model=str(MODEL),
        out=out,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        nominal_batch=BATCH_SIZE,
        image_size=image_size,
        hyp=Hyperparameters.from_dict({**FIXED, **config}),
        optimizer="adamw",
        anchors="keep" if data == "digits" else "auto",
        seed=seed,
        device="cpu",
        threads=1,
    )


def measure(config: dict[str, float | int], seed: int) -> dict[str, Any]:
    """Train once, and say how it went."""
    from trainer import train

    with tempfile.TemporaryDirectory() as folder:
        result = train(training(config, seed, Path(folder) / "training"))
    return {
        "fitness": None if result.fitness is None else round(result.fitness, 6),
        "history": [round(row["fitness"], 6) for row in result.history],
        "seconds": round(result.seconds, 2),
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=MODEL.parent / "digits.jsonl")
    parser.add_argument("--until", type=int, default=360)
    options = parser.parse_args()
    records = read(options.out)
    for index in range(len(records), options.until):
        kind, config, seed = plan(index, records)
        record = {"index": index, "kind": kind, "config": config, "seed": seed, **measure(config, seed)}
        with options.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")
        records.append(record)
        print(f"{index}: {kind}, fitness {record['fitness']}, {record['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
