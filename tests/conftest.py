"""Fixtures that every room's tests may use."""

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# No example has a deadline: on a busy machine any of them may take long, which says nothing of the code.
settings.register_profile("beagle", deadline=None)
settings.load_profile("beagle")

# A search's matrices are small: threads of BLAS only wait for each other. NumPy reads this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Where tests run side by side, readline has set them for the processes that do, and rich would keep to them.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side (`-n 2`), a file's tests stay together, and of the files marked `ray` one runs at a time."""
    from xdist.scheduler import LoadScopeScheduling

    # xdist 3.8 writes groups of its own into `_nodeid` of a test, which pytest 9.2 does not read.
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", maxsplit=1)[0]
            return "ray" if _starts_ray(path) else path

    return ByFile(config, log)


@cache
def _starts_ray(path: str) -> bool:
    return "pytest.mark.ray" in (REPOSITORY / path).read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, files that start a Ray come first: they take the longest."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and golden files, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("BEAGLE_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"real data sets are not at {folder} (set BEAGLE_SHARED)")
    return folder.resolve()


@pytest.fixture(scope="session")
def object_server() -> Iterator[Any]:
    """An object store on loopback that can be made to fail (`ObjectServer` of tests/object_server.py)."""
    pytest.importorskip("s3fs", reason="needs s3fs, of the extra dev")
    pytest.importorskip("moto", reason="needs moto, of the extra dev")
    path = Path(__file__).with_name("object_server.py")
    spec = importlib.util.spec_from_file_location("object_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.running() as server:
        yield server


@pytest.fixture
def bucket(object_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The server, empty and without faults, found by the environment; caches and scratch are this test's alone."""
    import fsspec

    for name, value in object_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BEAGLE_SCRATCH", str(tmp_path / "scratch"))
    stores = fsspec.get_filesystem_class("s3")
    stores.clear_instance_cache()
    object_server.empty()
    yield object_server
    object_server.fault = lambda method, path: None
    stores.clear_instance_cache()
