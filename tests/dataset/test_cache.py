import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset import Dataset, load
from dataset import loading as loading_module
from dataset.cache import cache_folder, place_entry

Writer = Callable[..., Path]
ROW = "0 0.5 0.5 0.2 0.4\n"


def _same(one: Dataset, other: Dataset) -> bool:
    return (one.name, one.source, one.names, one.notes, one.fingerprint) == (
        other.name,
        other.source,
        other.names,
        other.notes,
        other.fingerprint,
    ) and all(
        split.images == other.splits[name].images
        and np.array_equal(split.sizes, other.splits[name].sizes)
        and split.sizes.dtype == other.splits[name].sizes.dtype
        and [rows.tolist() for rows in split.labels] == [rows.tolist() for rows in other.splits[name].labels]
        and all(rows.dtype == np.float32 and rows.shape[1] == 5 for rows in other.splits[name].labels)
        for name, split in one.splits.items()
    )


def _forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("the labels were read again")

    monkeypatch.setattr(loading_module, "read_labels", refuse)


def test_what_is_remembered_equals_what_was_read(write_yolo: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_yolo({"a": ROW + "0 .2 .2 0 .1", "b": "", "c": ROW + ROW}, {"d": ""})
    fresh = load(source, cache=False)
    assert not cache_folder().exists() or not any(cache_folder().iterdir())
    first = load(source)
    _forbid_reading(monkeypatch)
    assert _same(fresh, first)
    assert _same(fresh, load(source))
    with pytest.raises(RuntimeError, match="read again"):
        load(source, cache=False)


def test_a_changed_label_is_noticed_even_when_its_length_and_time_stay(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    load(source)
    label = source.parent / "labels/train/a.txt"
    status = label.stat()
    label.write_text(ROW.replace("0.4", "0.3"))
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(source).train.labels[0][0, 4] == np.float32(0.3)


def test_new_missing_and_changed_images_are_noticed(write_yolo: Writer, write_image: Writer) -> None:
    source = write_yolo({"a": ROW, "b": ROW}, {"c": ROW})
    load(source)
    write_image(source.parent / "images/train/b.png", 32, 16)
    assert load(source).train.sizes.tolist() == [[64, 48], [32, 16]]
    (source.parent / "images/train/b.png").unlink()
    assert len(load(source).train) == 1
    write_image(source.parent / "images/train/z.png")
    assert len(load(source).train) == 2


def test_an_image_that_turns_up_later_is_found(write_coco: Writer) -> None:
    box = {"category_id": 1, "bbox": [1, 1, 9, 9]}
    path = write_coco(
        "all.json", [box | {"image_id": number} for number in (1, 2, 3)], files=["a.png", "b.png", "c.png"]
    )
    missing = path.parent / "images/c.png"
    content = missing.read_bytes()
    missing.unlink()
    assert sum(len(split) for split in load(path).splits.values()) == 2
    (path.parent / "c.png").write_bytes(content)  # another place than where it was looked for
    assert sum(len(split) for split in load(path).splits.values()) == 3


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 junk", None])
def test_a_damaged_entry_is_made_again(write_yolo: Writer, content: bytes | None) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    first = load(source)
    entry = place_entry(source)
    raw = entry.read_bytes()
    entry.write_bytes(raw[: len(raw) // 2] if content is None else content)
    assert _same(first, load(source))
    assert len(entry.read_bytes()) == len(raw)


def test_a_pickle_in_the_cache_is_never_opened(write_yolo: Writer, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "exploded",)  # type: ignore[return-value]

    source = write_yolo({"a": ROW}, {"b": ROW})
    first = load(source)
    with place_entry(source).open("wb") as file:
        np.savez(file, meta=np.array([Bomb()], dtype=object))
    assert _same(first, load(source))
    assert not (tmp_path / "exploded").exists()


def test_the_data_folder_is_never_written_to(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    before = sorted(path.name for path in source.parent.rglob("*"))
    load(source)
    assert sorted(path.name for path in source.parent.rglob("*")) == before


def test_a_cache_that_cannot_be_written_costs_only_time(
    write_yolo: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "file" / "below"))
    assert load(write_yolo({"a": ROW}, {"b": ROW})).train.boxes == 1
    assert "the label cache cannot be written" in caplog.text


def test_the_cache_folder_is_the_users_unless_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BEAGLE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "beagle"


def test_processes_that_start_at_once_all_get_the_set(write_yolo: Writer) -> None:
    source = write_yolo({f"i{number}": ROW * 3 for number in range(30)}, {"v": ROW})
    code = "import sys; from dataset import load; print(*[load(sys.argv[1]).fingerprint for _ in range(5)])"
    command = [sys.executable, "-W", "error", "-c", code, str(source)]
    repository = Path(__file__).resolve().parents[2]
    running = [
        subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=120) for process in running]
    assert {error for _, error in answers} == {""}
    assert {word for answer, _ in answers for word in answer.split()} == {load(source).fingerprint}
    assert [path.name for path in place_entry(source).parent.iterdir()] == [place_entry(source).name]
