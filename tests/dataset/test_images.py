import hashlib
import itertools
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset.images import ImageFacts, gather_facts, read_header


def _encode(suffix: str, width: int = 60, height: int = 40, channels: int = 3) -> bytes:
    shape = (height, width, channels) if channels > 1 else (height, width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def _exif(order: str, orientation: int, kind: int = 3) -> bytes:
    tiff = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    tiff += struct.pack(f"{order}H", 2)
    tiff += struct.pack(f"{order}HHII", 0x0100, 4, 1, 999)
    value = struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(f"{order}I", orientation)
    tiff += struct.pack(f"{order}HHI", 0x0112, kind, 1) + value + struct.pack(f"{order}I", 0)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _cv2_size(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path))
    return (0, 0) if image is None else (image.shape[1], image.shape[0])


def _look(path: Path) -> ImageFacts:
    return gather_facts([path], {})[path]


@pytest.mark.parametrize(("suffix", "channels"), list(itertools.product([".jpg", ".png", ".bmp"], [1, 3])))
def test_the_size_from_the_header_is_the_size_that_cv2_gives(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(_encode(suffix, channels=channels))
    facts = _look(path)
    assert (facts.width, facts.height) == _cv2_size(path) == (60, 40)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_common_images_are_not_decoded(suffix: str) -> None:
    raw = _encode(suffix)
    assert read_header(raw, raw, len(raw)) == (60, 40)


@pytest.mark.parametrize(("order", "orientation"), list(itertools.product("<>", range(10))))
def test_a_jpeg_is_turned_by_its_exif_as_cv2_turns_it(tmp_path: Path, order: str, orientation: int) -> None:
    raw = _encode(".jpg")
    path = tmp_path / "a.jpg"
    path.write_bytes(raw[:2] + _exif(order, orientation) + raw[2:])
    facts = _look(path)
    assert (facts.width, facts.height) == _cv2_size(path)
    assert ((facts.width, facts.height) == (40, 60)) == (5 <= orientation <= 8)


def test_odd_exif_blocks_are_left_to_cv2(tmp_path: Path) -> None:
    raw = _encode(".jpg")
    for number, blocks in enumerate(
        [
            _exif("<", 6) + _exif("<", 1),
            _exif(">", 6, kind=4),
            _exif("<", 6)[:30],
            b"\xff\xe1\0\x0aExif\0\0XX",
        ]
    ):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(raw[:2] + blocks + raw[2:])
        facts = _look(path)
        assert (facts.width, facts.height) == _cv2_size(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_a_cut_off_file_is_what_cv2_makes_of_it(tmp_path: Path, suffix: str, share: float) -> None:
    raw = _encode(suffix)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(raw[: int(len(raw) * share)])
    facts = _look(path)
    assert (facts.width, facts.height) == _cv2_size(path)


def test_every_prefix_of_a_header_is_read_without_a_crash() -> None:
    for suffix in (".jpg", ".png", ".bmp"):
        raw = _encode(suffix, 8, 8)
        for end in range(len(raw)):
            assert read_header(raw[:end], raw, len(raw)) in {None, (8, 8)}


def test_the_content_tells_the_kind_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(_encode(".png"))
    assert (_look(path).width, _look(path).height) == (60, 40)


def test_a_header_that_promises_more_px_than_cv2_reads_is_unreadable(tmp_path: Path) -> None:
    raw = bytearray(_encode(".png"))
    raw[16:24] = struct.pack(">II", 1 << 16, 1 << 16)
    path = tmp_path / "bomb.png"
    path.write_bytes(bytes(raw))
    assert (_look(path).width, _look(path).height) == (0, 0)


def test_a_missing_image_has_no_facts(tmp_path: Path) -> None:
    assert gather_facts([tmp_path / "nowhere.png", tmp_path / "no\0name"], {}) == {}
    assert gather_facts([], {}) == {}


def test_a_folder_in_an_images_place_is_unreadable_and_not_missing(tmp_path: Path) -> None:
    assert gather_facts([tmp_path], {})[tmp_path].width == 0


def test_a_file_is_read_again_only_when_its_length_or_time_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encode(".png"))
    status = path.stat()
    before = ImageFacts(status.st_size, status.st_mtime_ns, 7, 7, "before")
    assert gather_facts([path], {path: before}) == {path: before}
    os.utime(path, ns=(0, status.st_mtime_ns + 1))
    assert gather_facts([path], {path: before})[path].width == 60


def test_a_large_file_is_known_by_its_length_and_both_ends(tmp_path: Path) -> None:
    raw = _encode(".bmp", 800, 600)
    contents = [raw, raw[:-1] + bytes([raw[-1] ^ 1]), raw + b"\0", raw[:1000] + b"\x01\x02\x03" + raw[1003:]]
    digests = set()
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.bmp").write_bytes(content)
        facts = _look(tmp_path / f"{number}.bmp")
        assert (facts.width, facts.height) == (800, 600)
        digests.add(facts.digest)
    assert len(digests) == len(contents)


def test_the_digest_of_a_small_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encode(".png"))
    assert _look(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()
