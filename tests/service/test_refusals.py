"""What strangers try: refused with the right status, in one line, and without a trace on the disk."""

import contextlib
import gzip
import io
import json
import os
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.service_settings import ServiceSettings, read_token
from cluster.service_uploads import Limits, read_upload
from cluster.spec import ClusterError

Serve = Callable[..., Any]
Record = Callable[..., Path]
TOKEN = "a-token-for-these-tests-alone"
VOC = "<annotation><size><width>100</width><height>80</height></size>{}</annotation>"
LAUGHS = (
    '<!DOCTYPE a [<!ENTITY b "ha">'
    + "".join(f'<!ENTITY {chr(99 + n)} "{("&" + chr(98 + n) + ";") * 20}">' for n in range(9))
    + "]>"
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'


def files_of(folder: Path) -> dict[str, int]:
    """Every file but the audit, and the records of fits, which are what was asked and why it was refused."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and ".service" not in path.parts
    }


def zipped(**files: bytes | str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def lying_zip() -> bytes:
    """Its directory says that the entry unpacks to ten bytes."""
    packed = bytearray(zipped(**{"a.txt": b"0" * 5_000_000}))
    central = packed.rfind(b"PK\x01\x02")
    packed[central + 24 : central + 28] = (10).to_bytes(4, "little")
    return bytes(packed)


def encrypted_zip() -> bytes:
    packed = bytearray(zipped(**{"a.txt": b"0 .5 .5 .1 .1"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.find(mark) + place] |= 1
    return bytes(packed)


def send(live: Any, name: str, content: bytes, **fields: str) -> httpx.Response:
    answer: httpx.Response = live.http.post(
        "/anchors", params={"wait": 30}, files={"file": (name, content)}, data=fields
    )
    return answer


@pytest.fixture(scope="module")
def shared_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One service for all uploads, which is as it would be."""
    import importlib.util

    # The fixture of the folder is of a function's scope: here its maker is used.
    spec = importlib.util.spec_from_file_location("service_conftest", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("place")
    (folder / "allowed").mkdir()
    (folder / "secret.csv").write_text("w,h\n1,2\n")
    (folder / "allowed" / "leads-out.csv").symlink_to(folder / "secret.csv")
    options = {"roots": (folder / "allowed",), "upload_bytes": 1 << 20, "expanded_bytes": 2 << 20}
    with module.serving(folder / "runs", **options) as live:
        yield live


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("bomb.zip", zipped(**{"a.txt": b"0" * 50_000_000}), "unpacks to too much"),
        ("many.zip", zipped(**{f"{n}.txt": b"0 .5 .5 .1 .1\n" * 60_000 for n in range(5)}), "too much"),
        ("lies.zip", lying_zip(), "unpack|damaged"),
        ("locked.zip", encrypted_zip(), "can't be unpacked"),
        ("nested.zip", zipped(**{"inner.zip": zipped(**{"a.txt": b"0 .5 .5 .1 .1"})}), "holds no boxes"),
        ("cut.zip", zipped(**{"a.txt": b"0 .5 .5 .1 .1"})[:-30], "can't be unpacked"),
        ("bomb.csv.gz", gzip.compress(b"w,h\n" + b"1,1\n" * 10_000_000), "unpacks to too much"),
        ("laughs.xml", VOC.format("").replace("<annotation>", LAUGHS + "<annotation>").encode(), "refused"),
        ("outside.xml", (OUTSIDE + VOC.format("<object>&b;</object>")).encode(), "refused"),
        ("deep.json", b"[" * 100_000, "no COCO file"),
        ("huge.json", b'{"images": [], "annotations": [' + b"9" * 5000 + b"]}", "no COCO file"),
        ("anchor.txt", b"a: &a [x]\nb: *a\n", "must be"),
        ("nan.txt", b"0 nan nan nan nan\n", "must be"),
        ("binary.csv", b"\x00\xff\xfe" * 99, "cannot be read|must name"),
        ("empty.zip", zipped(), "no boxes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_hostile_file_is_refused_by_what_reads_it(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(ClusterError, match=why) as refused:
        read_upload(tmp_path / "upload", name, 320, Limits(2 << 20))
    assert "root:" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("bomb.zip", zipped(**{"a.txt": b"0" * 50_000_000}), "unpacks to too much"),
        ("outside.xml", (OUTSIDE + VOC.format("<object>&b;</object>")).encode(), "refused"),
    ],
    ids=["bomb", "entity"],
)
def test_a_hostile_upload_ends_as_a_failed_fit_with_its_reason(
    shared_live: Any, name: str, content: bytes, why: str
) -> None:
    before = files_of(shared_live.runs.parent)
    answer = send(shared_live, name, content)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["state"] == "failed"
    assert why in found["error"]
    assert "root:" not in answer.text
    assert str(shared_live.runs) not in found["error"]
    assert files_of(shared_live.runs.parent) == before


def test_what_lies_beside_the_bounds_of_a_zip_is_never_written(shared_live: Any) -> None:
    before = files_of(shared_live.runs.parent)
    rows = "\n".join(f"0 .5 .5 {0.01 * n + 0.02:.3f} {0.013 * n + 0.02:.3f}" for n in range(40))
    names = ("../../out.txt", "/tmp/out.txt", "..\\..\\out.txt", "labels/../../out.txt")
    answer = send(shared_live, "traverse.zip", zipped(**dict.fromkeys(names, rows)), image_size="320")
    assert answer.json()["state"] in ("done", "failed")  # the boxes count, the places do not
    assert files_of(shared_live.runs.parent) == before
    assert not Path("/tmp/out.txt").exists()


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("../../etc/passwd", {}, 422),
        ("run.py", {}, 422),
        ("data.yaml", {}, 422),
        ("boxes.csv", {"threshold": "nan"}, 422),
        ("boxes.csv", {"image_size": "1e999"}, 422),
        ("boxes.csv", {"per_level": "9" * 400}, 422),
        ("boxes.csv", {"model": "../../model.yaml"}, 422),
        ("boxes.csv", {"model": "no-such-model"}, 422),
        ("boxes.csv", {"surprise": "1"}, 422),
        ("boxes.csv", {"path": "digits"}, 422),
    ],
)
def test_a_form_that_is_wrong_is_refused_before_anything_is_kept(
    shared_live: Any, name: str, fields: dict[str, str], status: int
) -> None:
    kept = sorted((shared_live.runs / ".service" / "fits").iterdir())
    answer = send(shared_live, name, b"w,h\n1,2\n", **fields)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]
    assert sorted((shared_live.runs / ".service" / "fits").iterdir()) == kept


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "../secret.csv", "~/x", "{allowed}/../secret.csv", "{allowed}/leads-out.csv",
        "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "s3://bucket/x", "\x00", "data:,x",
        "//server/share", "{allowed}/none.csv", "{runs}",
    ],
)  # fmt: skip
def test_paths_outside_what_is_allowed_are_refused_for_fits_and_evolutions(
    shared_live: Any, path: str
) -> None:
    place = shared_live.runs.parent
    path = path.format(allowed=place / "allowed", runs=shared_live.runs)
    before = files_of(place)
    for body, where in (
        ({"path": path}, "/anchors"),
        ({"data": path, "name": "new"}, "/evolutions"),
        ({"data": "digits", "model": path, "name": "new"}, "/evolutions"),
    ):
        answer = shared_live.http.post(where, json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert "\n" not in answer.json()["error"]
    assert files_of(place) == before


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "application/yaml"}, b"a: &a [*a]", 415),
        ({"content-type": "text/xml"}, LAUGHS.encode(), 415),
        ({}, b"{}", 415),
        ({"content-type": "application/json"}, b"[" * 100_000, 422),
        ({"content-type": "application/json"}, b"\xff\xfe", 422),
        ({"content-type": "application/json"}, b'{"path": "digits", "seed": ' + b"9" * 9999 + b"}", 422),
        ({"content-type": "multipart/form-data"}, b"x", 400),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\nnonsense", 422),
    ],
)
def test_bodies_that_are_none_are_refused(
    shared_live: Any, headers: dict[str, str], content: bytes, status: int
) -> None:
    answer = shared_live.http.post("/anchors", headers=headers, content=content)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]


def test_an_upload_beyond_the_limit_is_refused_with_and_without_a_length(shared_live: Any) -> None:
    kept = sorted((shared_live.runs / ".service" / "fits").iterdir())
    assert send(shared_live, "big.csv", b"1" * (2 << 20)).status_code == 413

    def endless() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        for _ in range(64):
            yield b"1" * (1 << 16)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    try:
        answer = shared_live.http.post("/anchors", headers=headers, content=endless())
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # it hung up on what came after the answer
    assert shared_live.http.post("/evolutions", content=b"1" * (1 << 19)).status_code == 413
    pieces = iter([b" " * (1 << 17)] * 3)
    answer = shared_live.http.post(
        "/evolutions", headers={"content-type": "application/json"}, content=pieces
    )
    assert answer.status_code == 413
    assert sorted((shared_live.runs / ".service" / "fits").iterdir()) == kept


@pytest.mark.parametrize(
    "header",
    [None, "Bearer", "Bearer wrong-token-of-someone", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"],
)
def test_without_the_right_token_nothing_is_read_or_changed(
    serve: Serve, record: Record, header: str | None
) -> None:
    record("night")
    live = serve(token=TOKEN)
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    before = files_of(live.runs)
    with httpx.Client(base_url=live.url, headers=headers) as http:
        for path in (
            "/evolutions",
            "/evolutions/night",
            "/evolutions/night/events",
            "/metrics",
            "/openapi.json",
        ):
            assert http.get(path).status_code == 401, path
        assert http.post("/evolutions", json={"data": "digits", "name": "x"}).status_code == 401
        assert http.post("/anchors", json={"path": "digits"}).status_code == 401
        assert http.get("/health").status_code == 200
        assert http.get("/").status_code == 200
    assert files_of(live.runs) == before
    assert TOKEN not in live.audit()
    assert live.audit().count('"status":401') == 2


def test_pages_of_other_sites_and_names_that_lead_here_change_and_read_nothing(
    serve: Serve, record: Record
) -> None:
    record("night")
    live = serve()
    assert live.http.get("/evolutions", headers={"host": "evil.example"}).status_code == 403
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        assert live.http.post("/evolutions/night/stop", headers=headers).status_code == 403
    assert live.http.post("/evolutions/night/stop", headers={"origin": live.url}).status_code == 409
    assert not (live.runs / "night" / "stop").exists()


def raw(live: Any) -> socket.socket:
    host, port = live.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def is_closed(connection: socket.socket) -> bytes:
    """What still came before the other side hung up; fails when it does not."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(4096):
            got += piece
    return got


def test_slow_clients_are_hung_up_on_and_nobody_waits_for_them(serve: Serve, record: Record) -> None:
    record("night")
    live = serve(header_seconds=0.6, body_seconds=0.6)
    with raw(live) as silent, raw(live) as dripping, raw(live) as slow_body, raw(live) as long_head:
        slow_body.sendall(
            b"POST /evolutions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 90\r\n\r\n{"
        )
        for letter in b"GET /health HT":
            with contextlib.suppress(OSError):
                dripping.send(bytes([letter]))
            time.sleep(0.1)
            assert live.http.get("/health").status_code == 200
        with contextlib.suppress(OSError):
            long_head.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000)
        assert is_closed(silent) == b""
        assert is_closed(dripping) == b""
        assert b" 408 " in is_closed(slow_body)
        assert b"200" not in is_closed(long_head)
    assert live.http.get("/evolutions/night").status_code == 200


def test_a_quick_client_may_keep_its_connection_beyond_the_time_for_a_head(serve: Serve) -> None:
    live = serve(header_seconds=0.5)
    with raw(live) as kept:
        for _ in range(3):
            kept.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            got = b""
            while not got.endswith(b"}"):
                got += kept.recv(4096)
            assert got.startswith(b"HTTP/1.1 200")
            time.sleep(0.7)


def test_more_connections_than_may_be_are_told_to_come_again(serve: Serve) -> None:
    live = serve(connections=4)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(raw(live))
        time.sleep(0.2)
        answer = live.http.get("/health")
        assert answer.status_code == 503
    time.sleep(0.2)
    assert live.http.get("/health").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.7.7", "example.org"])  # noqa: S104
def test_a_service_that_others_reach_needs_a_token(host: str, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="a token must be given"):
        ServiceSettings(runs=tmp_path, host=host)
    assert TOKEN not in repr(ServiceSettings(runs=tmp_path, host=host, token=TOKEN))


def test_a_token_that_is_weak_or_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("short")
    file.chmod(0o600)
    with pytest.raises(ClusterError, match="16 or more"):
        read_token(file)
    file.write_text(TOKEN)
    file.chmod(0o640)
    with pytest.raises(ClusterError, match="chmod 600"):
        read_token(file)
    assert os.environ.get("BEAGLE_TOKEN") is None


def test_every_change_leaves_one_audit_line(serve: Serve, record: Record) -> None:
    record("night")
    live = serve(token=TOKEN)
    live.http.get("/evolutions")
    live.http.post("/evolutions/night/stop")
    live.http.post("/evolutions", json={"data": "/etc", "name": "new"})
    live.http.post("/evolutions/night%0A{}/stop")
    lines = [json.loads(line) for line in live.audit().splitlines()]
    assert [(line["method"], line["status"]) for line in lines] == [
        ("POST", 409),
        ("POST", 422),
        ("POST", 404),
    ]
    assert {line["token"] for line in lines} == {live.settings.fingerprint}
    assert lines[1]["what"] == {"data": "/etc", "model": "yolov5s", "name": "new", "to": "local"}
    assert all(line["client"] == "127.0.0.1" for line in lines)
