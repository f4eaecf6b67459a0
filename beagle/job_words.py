"""What the words of a submitted command say of it: where its run is, and what it must find where it runs."""

import os
from pathlib import Path

from beagle.folders import unused_folder
from cluster.probe import Needs, versions_here
from evolve.store_url import StoreUrl

WITH_DATA = ("evolve", "train")


def option(words: tuple[str, ...], name: str) -> str | None:
    """The value of an option among the words, given as `--name VALUE` or `--name=VALUE`; None without it."""
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def resumable(words: tuple[str, ...], runs: Path = Path("runs")) -> tuple[str, ...]:
    """The same command, but so that starting it a second time goes on with the run rather than begin another."""
    if words[0] != "evolve" or "--help" in words:
        return words
    if option(words, "--out") is None:
        words = (*words, "--out", str(unused_folder(runs, "evolve").absolute()))
    return words if "--resume" in words else (*words, "--resume")


def needs_of(words: tuple[str, ...], folder: Path) -> Needs:
    """What a command must find where it runs.

    Args:
        words: What follows `beagle`.
        folder: From which relative paths are meant.
    """
    paths: list[str] = []
    writable: list[str] = []
    stores: list[str] = []
    given = words[1] if len(words) > 1 and not words[1].startswith("-") else None
    if words[0] in WITH_DATA and given is not None:
        data = folder / Path(given).expanduser()
        if given != "digits" or data.exists():
            paths.append(str(data))
    if words[0] == "resume" and given is not None:
        (paths if StoreUrl.parse(given) is None else stores).append(_absolute(given, folder))
    files = {name: option(words, name) for name in ("--weights", "--hyp", "--space", "--trainer")}
    paths += [
        str(folder / file)
        for name, file in files.items()
        if file is not None and (name != "--trainer" or file.endswith((".yaml", ".yml")))
    ]
    if words[0] in WITH_DATA:
        out = option(words, "--out") or "runs/x"
        if StoreUrl.parse(out) is None:
            writable.append(str((folder / out).parent))
        else:
            stores.append(out)
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    return Needs(
        paths=tuple(paths),
        writable=tuple(writable),
        stores=tuple(stores),
        urls=(store,) if store.startswith("http") else (),
        gpus=_number(option(words, "--gpus")),
        versions=versions_here(),
    )


def _absolute(source: str, folder: Path) -> str:
    return source if StoreUrl.parse(source) else str(folder / source)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0  # the command itself will say so
