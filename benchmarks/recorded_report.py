"""The report of a long evolution whose every result is a real training's: its size, and the time it takes to make.

    python -m benchmarks.recorded_report [--trials 1000] [--to recorded]

The search, the ledger and the journal are the real ones. A training is not run but looked up: what the search asks
for is answered by the fitness and the learning curve of the nearest training of `data/digits.jsonl` (Euclidean
over the encoded genes; of trainings of one configuration under several seeds, a drawn one). So there are only as many
different results as recorded trainings, and gains of a search here say nothing of its gains elsewhere: the run is for
looking at the report, and for measuring it. Opens: TO/report.html.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record_digits import BATCH_SIZE, EPOCHS, IMAGE_SIZE, SPACE
from benchmarks.search_problems import TABLE
from evolve import Journal
from evolve.ledger import Ledger
from evolve.report import write_report
from evolve.trainable import Outcome


class Recorded:
    """Answers a configuration by the nearest recorded training."""

    def __init__(self, records: list[dict[str, Any]], seed: int) -> None:
        """Reads nothing.

        Args:
            records: Lines of the table.
            seed: Of the choice among trainings of one configuration.
        """
        self._records = records
        self._points = np.array([SPACE.encode(record["config"]) for record in records])
        self._rng = np.random.default_rng(seed)

    def nearest(self, config: dict[str, Any]) -> dict[str, Any]:
        """A record of the configuration that is nearest to this one."""
        distances = np.linalg.norm(self._points - SPACE.encode(config), axis=1)
        return self._records[self._rng.choice(np.flatnonzero(distances <= distances.min() + 1e-9))]


def replay(folder: Path, trials: int, seed: int) -> int:
    """Run the evolution over the table.

    Args:
        folder: Must hold no journal.
        trials: How many.
        seed: Of the search.

    Returns:
        How many different trainings were looked up.
    """
    records = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
    table, used = Recorded(records, seed), set()
    with Journal(folder / "journal.jsonl") as journal:
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": f"digits, {len(records)} recorded trainings looked up {trials} times",
                "trials": trials,
                "seed": seed,
                "space": SPACE.to_dict(),
                "search": {},
                "settings": {
                    "data": "digits",
                    "epochs": EPOCHS,
                    "image_size": IMAGE_SIZE,
                    "batch_size": BATCH_SIZE,
                },
                "resources": {"cpus": 1.0, "gpus": 0.0, "concurrent": 1},
                "provenance": {},
            },
            sync=False,
        )
        ledger = Ledger(folder, journal)
        while (assignment := ledger.next_assignment()) is not None:
            record = table.nearest(assignment.config)
            used.add(record["index"])
            for epoch, fitness in enumerate(record["history"]):
                ledger.reported(assignment.trial, epoch, {"fitness": fitness})
            best = record["fitness"]
            metrics = {} if best is None else {"fitness": best}
            ledger.ended(assignment.trial, Outcome(best, metrics, seconds=record["seconds"]))
    return len(used)


def main() -> None:
    """Replay, write the report, and print what both took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=Path("recorded"))
    options = parser.parse_args()
    options.to.mkdir(parents=True)
    begun = time.perf_counter()
    used = replay(options.to, options.trials, options.seed)
    print(
        f"{options.trials} trials answered by {used} recorded trainings: {time.perf_counter() - begun:.1f} s"
    )
    begun = time.perf_counter()
    page = write_report(options.to)
    seconds = time.perf_counter() - begun
    print(f"{page}: {page.stat().st_size / 1e6:.2f} MB, written in {seconds:.1f} s")


if __name__ == "__main__":
    main()
