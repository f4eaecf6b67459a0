"""Fixtures that every room's tests may use."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# No example has a deadline: on a busy machine any of them may take long, which says nothing of the code.
settings.register_profile("beagle", deadline=None)
settings.load_profile("beagle")

# Where tests run side by side, readline has set them for the processes that do, and rich would keep to them.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (`-n 2`), a file's tests stay together, and files of one `xdist_group` wait for each other.

    Those of the group "ray" start a Ray, of which there is one at a time. They take the longest, so they come first.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(REPOSITORY))))
    items.sort(key=lambda item: next(item.iter_markers("xdist_group")).args != ("ray",))


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
