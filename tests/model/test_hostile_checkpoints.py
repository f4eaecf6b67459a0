"""Checkpoints that were made to do harm, or that are damaged, are refused by name, quickly, and do nothing."""

import builtins
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model.pickled as pickled_module
from model import build
from model.byte_stream import ByteStream
from model.pickled import read_pickle
from model.recorded import RefusedError
from model.spec import ModelError
from model.weights import read_checkpoint

PROTO = b"\x80\x02"


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def write_zip(
    path: Path, pickled: bytes, *others: tuple[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for name, data in others:
            archive.writestr(name, data)
    return path


@pytest.fixture
def bomb(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of an archive like torch.save's whose pickle is given."""
    return lambda pickled, *others, **kw: write_zip(tmp_path / "bomb.pt", pickled, *others, **kw)


CALLS = {
    "os.system": lambda flag: Call(os.system, f"touch {flag}"),
    "subprocess.Popen": lambda flag: Call(subprocess.Popen, ["touch", str(flag)]),
    "builtins.eval": lambda flag: Call(eval, f"open({str(flag)!r}, 'w')"),
    "builtins.exec": lambda flag: Call(exec, f"open({str(flag)!r}, 'w')"),
    "builtins.getattr": lambda flag: Call(getattr, str(flag), "upper"),
    "builtins.__import__": lambda flag: Call(builtins.__import__, "os"),
    "torch.hub.load": lambda flag: Call(torch.hub.load, "someone/something", "model"),
    "torch.serialization.load": lambda flag: Call(torch.load, str(flag)),
    "torch.serialization.save": lambda flag: Call(torch.save, {}, str(flag)),
    "numpy.load": lambda flag: Call(__import__("numpy").load, str(flag), None, True),
    "builtins.open": lambda flag: Call(open, str(flag), "w"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("place", ["alone", "in the weights", "as a layer"])
def test_a_call_is_refused_by_its_name_and_not_made(name: str, place: str, tmp_path: Path) -> None:
    flag = tmp_path / "sprung"
    call = CALLS[name](flag)
    value = {
        "alone": call,
        "in the weights": {"model": call},
        "as a layer": {"ema": {"a": torch.zeros(2), "b": call}},
    }
    for legacy in (False, True):
        torch.save(value[place], tmp_path / "bad.pt", _use_new_zipfile_serialization=not legacy)
        expected = name.replace("os.system", r"(posix|os)\.system").replace(
            "builtins.open", r"(_io|io)\.open"
        )
        with pytest.raises(ModelError, match=rf"bad\.pt .*it asks for '{expected}'") as caught:
            read_checkpoint(tmp_path / "bad.pt")
        assert "\n" not in str(caught.value)
    assert not flag.exists()


def test_reading_imports_nothing_that_a_file_names(tmp_path: Path) -> None:
    module = tmp_path / "models.py"
    module.write_text("raise SystemExit('imported')\n")
    pickled = PROTO + b"cmodels.yolo\nModel\n)\x81}X\x08\x00\x00\x00_modules}sb."
    write_zip(tmp_path / "model.pt", pickled)
    code = "import sys; from model.weights import read_checkpoint; read_checkpoint(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "imported" not in done.stderr


@pytest.mark.parametrize("name", ["torch.nn", "models", "utils"])
def test_calls_of_inert_names_only_leave_a_record(name: str, bomb: Callable[..., Path]) -> None:
    pickled = PROTO + f"c{name}.init\nnormal_\n".encode() + b"X\x01\x00\x00\x00a\x85R."
    record = read_pickle(ByteStream(pickled))
    assert (record.name, record.arguments) == (f"{name}.init.normal_", ("a",))
    with pytest.raises(ModelError, match="there is no model and no state dict in it"):
        read_checkpoint(bomb(pickled))


def test_a_name_that_only_begins_like_an_inert_one_is_refused() -> None:
    for name in ("modelshell", "torch.nnx", "utilsx.os"):
        with pytest.raises(RefusedError, match=f"it asks for '{name}.run'"):
            read_pickle(ByteStream(PROTO + f"c{name}\nrun\n.".encode()))


def test_a_name_with_line_ends_is_shown_on_one_line() -> None:
    pickled = pickle.dumps({"a": 1}, 4).replace(b".", b"")[:0] + b"\x80\x04\x8c\x04a\nb\x1b\x8c\x01c\x93."
    with pytest.raises(RefusedError, match=r"asks for 'a\\nb\\x1b.c'"):
        read_pickle(ByteStream(pickled))


# Bombs


def test_deep_nesting_of_tuples_as_a_key_is_refused_before_it_is_hashed() -> None:
    nested = b"}" + b")" + b"\x85" * 50_000 + b"K\x01s."
    doubling = b"})"
    for _ in range(60):
        doubling += b"q\x00h\x00\x86"
    for body in (nested, doubling + b"K\x01s.", b"cbuiltins\nset\n](" + doubling[1:] + b"e\x85R."):
        with pytest.raises(RefusedError, match="keys of type tuple"):
            read_pickle(ByteStream(PROTO + body))


def test_deep_nesting_of_settings_is_refused(bomb: Callable[..., Path]) -> None:
    for opening in (b"]" * 50_000 + b"a" * 49_999, b")" + b"\x85" * 50_000):
        yaml = b"X\x04\x00\x00\x00yaml" + opening + b"s"
        pickled = PROTO + b"cmodels.yolo\nModel\n)\x81}X\x08\x00\x00\x00_modules}s" + yaml + b"b."
        checkpoint = read_checkpoint(bomb(pickled))  # there is nothing else in it
        assert checkpoint.spec is None
        assert not checkpoint.state


def test_settings_that_double_at_each_step_are_refused_quickly(bomb: Callable[..., Path]) -> None:
    laughs = b"]q\x000" + b"]h\x00ah\x00aq\x000" * 80 + b"h\x00"
    pickled = (
        PROTO
        + b"cmodels.yolo\nModel\n)\x81}X\x08\x00\x00\x00_modules}sX\x04\x00\x00\x00yaml"
        + laughs
        + b"sb."
    )
    assert read_checkpoint(bomb(pickled)).spec is None


def test_modules_that_hold_themselves_are_refused(bomb: Callable[..., Path]) -> None:
    for times in (1, 2):
        child = b"X\x01\x00\x00\x00ah\x05s" + b"X\x01\x00\x00\x00bh\x05s" * (times - 1)
        pickled = PROTO + b"cmodels.yolo\nModel\n)\x81q\x05}X\x08\x00\x00\x00_modules}" + child + b"sb."
        with pytest.raises(ModelError, match="its modules are nested too deeply, or too many"):
            read_checkpoint(bomb(pickled))


def test_one_list_that_is_copied_again_and_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_module, "MAX_COST", 100_000)
    pairs = b"](" + b"K\x01K\x02\x86" * 2_000 + b"eq\x00"
    body = pairs + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 200
    with pytest.raises(RefusedError, match="takes more than 100,000 steps"):
        read_pickle(ByteStream(PROTO + body + b"."))
    with pytest.raises(RefusedError, match="takes more than 100,000 steps"):
        read_pickle(ByteStream(PROTO + b"N0" * 60_000 + b"."))


def test_numbers_whose_hashes_clash_are_refused_as_keys() -> None:
    large = pickle.encode_long((2**61 - 1) * 3)
    with pytest.raises(RefusedError, match="keys of type int"):
        read_pickle(ByteStream(PROTO + b"}\x8a" + bytes([len(large)]) + large + b"K\x01s."))


def test_a_text_or_memo_that_claims_to_be_huge_takes_no_memory() -> None:
    for body in (
        b"X\xff\xff\xff\x7fabc",
        b"\x8d" + struct.pack("<Q", 2**62) + b"abc",
        b"\x8b\xff\xff\xff\x7fabc",
        b"B\xff\xff\xff\xffabc",
    ):
        with pytest.raises(ModelError, match="its pickle is damaged"):
            read_pickle(ByteStream(PROTO + body + b"."))
    assert read_pickle(ByteStream(PROTO + b"K\x01r\xff\xff\xff\xff.")) == 1


def test_compressed_members_are_refused_so_no_archive_grows(bomb: Callable[..., Path]) -> None:
    path = bomb(pickle.dumps({}, 2), ("archive/data/0", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match="its members are compressed"):
        read_checkpoint(path)


def test_members_that_overlap_or_share_a_name_or_lie_elsewhere_are_refused(
    bomb: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = bomb(pickle.dumps({}, 2), ("archive/data/0", b"12"), ("archive/data/0", b"34"))
    with pytest.raises(ModelError, match="two of its members have one name"):
        read_checkpoint(path)
    for name in ("archive/../../etc/passwd", "/etc/passwd", "other/data/0", "archive\\..\\x"):
        with pytest.raises(ModelError, match="lies outside of the folder 'archive'"):
            read_checkpoint(bomb(pickle.dumps({}, 2), (name, b"")))
    path = bomb(pickle.dumps({}, 2), ("archive/data/0", bytes(1000)))
    data = path.read_bytes()
    place = data.rindex(b"PK\x01\x02")  # the central directory's entry of the last member: both its sizes
    path.write_bytes(data[: place + 20] + struct.pack("<II", 10**6, 10**6) + data[place + 28 :])
    with pytest.raises(ModelError, match="its members are larger than the file"):
        read_checkpoint(path)


def tensor_of(size: bytes, stride: bytes, offset: int = 0) -> bytes:
    """A pickle of {"a": tensor} over a storage of four numbers, its sizes written out."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2, 2)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        pickled = archive.read("archive/data.pkl")
    before = b"QK\x00K\x02K\x02\x86q\x08K\x02K\x01\x86q\t"
    assert before in pickled
    return pickled.replace(before, b"QJ" + struct.pack("<i", offset) + size + b"q\x08" + stride + b"q\t")


@pytest.mark.parametrize(
    ("size", "stride", "offset", "message"),
    [
        (b"K\x02K\x02\x86", b"K\x64K\x01\x86", 0, "has too few numbers"),
        (b"K\x02K\x02\x86", b"K\x02K\x01\x86", 3, "has too few numbers"),
        (b"K\x02K\x02\x86", b"K\x02K\x01\x86", 2**30, "has too few numbers"),
        (b"J\xff\xff\xff\x7fK\x02\x86", b"K\x00K\x00\x86", 0, "its tensors are larger than the file"),
        (b"J\xff\xff\xff\xffK\x02\x86", b"K\x02K\x01\x86", 0, "its pickle is damaged"),
        (b"K\x02K\x02\x86", b"J\xff\xff\xff\xffK\x01\x86", 0, "its pickle is damaged"),
        (b"K\x02\x85", b"K\x02K\x01\x86", 0, "its pickle is damaged"),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(
    size: bytes, stride: bytes, offset: int, message: str, bomb: Callable[..., Path]
) -> None:
    with pytest.raises(ModelError, match=rf"bomb\.pt cannot be read as a checkpoint: .*{message}"):
        read_checkpoint(bomb(tensor_of(size, stride, offset), ("archive/data/0", bytes(16))))


def test_many_tensors_of_one_storage_are_no_more_than_the_file(bomb: Callable[..., Path]) -> None:
    numbers = torch.zeros(250_000)
    buffer = io.BytesIO()
    torch.save({str(i): numbers.view(-1) for i in range(500)}, buffer)
    with pytest.raises(ModelError, match="its tensors are larger than the file"):
        read_checkpoint(_written(buffer.getvalue(), bomb(b".").parent / "shared.pt"))


def _written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same state dict in each kind of file."""
    folder = tmp_path_factory.mktemp("whole")
    state = build("yolov5n", classes=1).state_dict()
    torch.save(state, folder / "new.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    from safetensors.torch import save_file

    save_file(state, folder / "a.safetensors")
    return folder


@pytest.mark.parametrize("name", ["new.pt", "old.pt", "a.safetensors"])
def test_a_file_that_is_cut_short_anywhere_is_refused_in_one_line(
    name: str, whole: Path, tmp_path: Path
) -> None:
    data = (whole / name).read_bytes()
    for length in (0, 1, 4, 10, 1000, len(data) // 2, len(data) - 1000, len(data) - 1):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(
            ModelError, match=name.replace(".", r"\.") + " cannot be read as a checkpoint"
        ) as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_changed_number_in_an_archive_is_noticed(whole: Path, tmp_path: Path) -> None:
    data = bytearray((whole / "new.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.pt").write_bytes(data)
    with pytest.raises(
        ModelError, match=r"changed\.pt cannot be read as a checkpoint: it is cut short or damaged"
    ):
        read_checkpoint(tmp_path / "changed.pt")


def read_or_refuse(data: bytes) -> None:
    """Any other error than a refusal fails the test."""
    refusal = ""
    try:
        read_pickle(ByteStream(data))
    except ModelError as error:
        refusal = str(error)
    assert "\n" not in refusal


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_a_pickle_are_read_or_refused(data: bytes) -> None:
    for start in (b"", PROTO, PROTO + b"}("):
        read_or_refuse(start + data)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_checkpoint_pickle_with_changed_bytes_is_read_or_refused(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2, 2), "b": [1, 2.5, "x", {"c": None}], "d": torch.float16}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        pickled = bytearray(archive.read("archive/data.pkl"))
    for _ in range(data.draw(st.integers(1, 4))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(pickled))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    for name, data, message in (
        ("text.pt", b"hello, this is text", "of no kind that is known"),
        ("empty.pt", b"", "it is empty"),
        ("plain.pt", pickle.dumps({"a": 1}), "no checkpoint that torch.save wrote"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match=message):
            read_checkpoint(tmp_path / name)
    with pytest.raises(ModelError, match=r"no checkpoint at .*none\.pt"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ModelError, match="cannot be read as a checkpoint: Is a directory"):
        read_checkpoint(tmp_path)


def test_a_torchscript_program_is_refused(bomb: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="it is a TorchScript program, not a checkpoint"):
        read_checkpoint(bomb(pickle.dumps({}, 2), ("archive/constants.pkl", b"")))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    torch.save({"model.0.conv.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    with pytest.raises(ModelError, match=r"nan\.pt: 'model.0.conv.weight' holds numbers that are not finite"):
        read_checkpoint(tmp_path / "nan.pt")
