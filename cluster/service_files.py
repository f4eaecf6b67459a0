"""What the service hands out as files: reports and exports, made from the journal when they are asked for."""

import shutil
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cluster.service_runs import JOURNAL, Runs
from evolve.report import write_report

Export = Callable[[Path, Path, str | None], None]
"""(run folder, folder to make, format or None for the run's own): writes what production trains from."""

_KEPT_REPORTS = 8


class Files:
    """Reports and exports. Safe for many threads; one is made at a time, since making one takes a core."""

    def __init__(self, runs: Runs, export: Export) -> None:
        """Nothing is made yet."""
        self._runs = runs
        self._export = export
        self._making = threading.Lock()
        self._reports: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    def report(self, run_id: str) -> bytes:
        """The report of a run as HTML.

        Raises:
            NoSuchRunError: There is none.
            EvolveError: Its journal says too little, or can't be believed.
        """
        folder = self._runs.folder_of(run_id)
        with self._making:
            size = (folder / JOURNAL).stat().st_size
            kept = self._reports.get(run_id)
            if kept is None or kept[0] != size:
                with tempfile.TemporaryDirectory(prefix="beagle-report-") as place:
                    kept = size, write_report(folder, Path(place) / "report.html").read_bytes()
                self._reports[run_id] = kept
            self._reports.move_to_end(run_id)
            while len(self._reports) > _KEPT_REPORTS:
                self._reports.popitem(last=False)
            return kept[1]

    def export(self, run_id: str, target: str | None) -> Path:
        """The export of a run as a zip file in a temporary folder of its own, which the caller removes.

        Raises:
            NoSuchRunError: There is none.
            EvolveError, ValueError: It can't be exported, or not in this format.
        """
        folder = self._runs.folder_of(run_id)
        place = Path(tempfile.mkdtemp(prefix="beagle-export-"))
        try:
            with self._making:
                name = f"{run_id}-{target or 'export'}"
                self._export(folder, place / name, target)
            packed = place / "export.zip"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for path in sorted((place / name).rglob("*")):
                    if path.is_file():
                        archive.write(path, path.relative_to(place))
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return packed
