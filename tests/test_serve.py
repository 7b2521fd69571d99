"""The HTTP interface on a real server: its answers, its refusals, and that no request harms it."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.small_run import SEEN, UNSEEN
from helpers.small_server import CALIBRATION, Answer, Client, form, serving
from lesa.cli import serve as cli_serve
from lesa.cli.serve import is_loopback, page_url, parse_host
from lesa.errors import LesaError
from lesa.index.search import Index
from lesa.tagger import Tagger
from lesa.web.app import STATIC
from lesa.web.guard import host_name
from lesa.web.limits import Limits

ROOT = Path(__file__).resolve().parents[1]
NAMES = UNSEEN + SEEN
SMALL = Limits(photo=20_000, body=60_000, photos=3, ids=4, labels=5, letters=10, top=6, kept=2)


@pytest.fixture(scope="module")
def collection(small_bundle: Path) -> Path:
    return small_bundle


@pytest.fixture(scope="module")
def server(collection: Path) -> Iterator[Client]:
    with serving(collection) as client:
        yield client


@pytest.fixture(scope="module")
def small(collection: Path) -> Iterator[Client]:
    with serving(collection, limits=SMALL) as client:
        yield client


@pytest.fixture(scope="module")
def calibrated(collection: Path) -> Iterator[Client]:
    with serving(collection, calibrated=True) as client:
        yield client


@pytest.fixture(scope="module")
def cat(collection: Path) -> bytes:
    return (collection / "photos" / "cat-0.jpg").read_bytes()


def image_bytes(form: str, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return file.getvalue()


def error(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.body
    return str(answer.json()["error"])


# Tags


def test_the_server_answers_as_the_tagger_does(server: Client, collection: Path) -> None:
    photos = [collection / "photos" / name for name in ("cat-0.jpg", "rocket-3.jpg")]
    answer = server.tag([(photo.name, photo.read_bytes()) for photo in photos], top=3)
    assert answer.status == 200
    assert answer.json()["labels"] == len(NAMES)
    tagger = Tagger(collection / "small.lesa")
    for photo, found in zip(photos, answer.json()["photos"], strict=True):
        assert (found["name"], found["size"]) == (photo.name, [120, 80])
        tags = tagger.tag(photo, top=3)
        assert [tag["label"] for tag in found["tags"]] == [tag.label for tag in tags]
        for tag, expected in zip(found["tags"], tags, strict=True):
            assert tag["score"] == pytest.approx(expected.score, abs=1e-4)
            assert (tag["seen"], tag["box"]) == (expected.seen, list(expected.box))
            rows, columns = tagger.bundle.manifest.grid
            assert len(tag["evidence"]) == rows
            assert {len(row) for row in tag["evidence"]} == {columns}
            assert np.array(tag["evidence"]) == pytest.approx(expected.evidence, abs=1e-4)
            # All but the evidence is as `lesa tag` writes it.
            assert {**tag, "evidence": None} == json.loads(json.dumps(expected.to_dict())) | {"evidence": None}
        full = tagger.full_colour(tagger.codes(photo), tagger.labels())
        greatest = max(value for tag in found["tags"] for line in tag["evidence"] for value in line)
        assert found["full_colour"] == pytest.approx(full, abs=1e-4)
        assert greatest <= found["full_colour"]
        # The backbone takes a square out of the middle.
        assert found["crop"] == [20, 0, 100, 80]


def test_other_labels_need_no_other_upload(server: Client, collection: Path, cat: bytes) -> None:
    (first,) = server.tag([("cat.jpg", cat)]).json()["photos"]
    answer = server.tag(ids=[first["id"]], labels="red\n\n Paris \nmoon\n", top=2).json()
    assert answer["labels"] == 3
    (found,) = answer["photos"]
    expected = Tagger(collection / "small.lesa").tag(
        collection / "photos" / "cat-0.jpg", ["red", "Paris", "moon"], top=2
    )
    assert [tag["label"] for tag in found["tags"]] == [tag.label for tag in expected]
    limit = (expected[0].score + expected[1].score) / 2
    (found,) = server.tag(ids=first["id"], labels=["red", "Paris\nmoon"], threshold=limit).json()["photos"]
    assert [tag["label"] for tag in found["tags"]] == [expected[0].label]


def test_the_same_bytes_have_the_same_id_until_the_server_stops(server: Client, small: Client, cat: bytes) -> None:
    ids = {client.tag([(name, cat)]).json()["photos"][0]["id"] for client in (server, small) for name in "ab"}
    assert len(ids) == 2


def test_an_id_that_is_no_longer_held_is_gone(small: Client) -> None:
    photos = [(f"{i}.png", image_bytes("PNG", (30 + i, 30))) for i in range(3)]
    ids = [photo["id"] for photo in small.tag(photos).json()["photos"]]
    answer = small.tag(ids=[*ids, "../../etc/passwd"]).json()["photos"]
    assert [photo.get("gone", False) for photo in answer] == [True, False, False, True]
    assert "send it again" in answer[0]["error"]


def test_a_broken_photo_is_named_and_the_others_are_done(server: Client, cat: bytes) -> None:
    photos = [
        ("good.jpg", cat),
        ("broken.jpg", b"no photo"),
        ("cut.jpg", cat[:900]),
        ("empty.png", b""),
        ("too.jpg", cat),
    ]
    found = server.tag(photos).json()["photos"]
    assert [("error" in photo, photo["name"]) for photo in found] == [
        (False, "good.jpg"),
        (True, "broken.jpg"),
        (True, "cut.jpg"),
        (True, "empty.png"),
        (False, "too.jpg"),
    ]
    assert found[1]["error"] == "broken.jpg is not a photo that can be read"


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "/etc/passwd",
        "<img src=x onerror=alert(1)>.jpg",
        "a\u202egpj.exe",
        "ü" * 600,
        "",
    ],
)
def test_a_name_is_only_echoed(server: Client, cat: bytes, name: str) -> None:
    answer = server.tag([(name, cat), (name, b"broken")])
    assert answer.headers["content-type"] == "application/json"
    good, broken = answer.json()["photos"]
    assert good["name"] == broken["name"] == (name[:255] or "photo")
    assert "tags" in good
    assert "error" in broken


def test_a_name_that_is_no_text_is_answered(server: Client, cat: bytes) -> None:
    body, headers = form([(r"\ud800.jpg", cat)], {})
    headers["content-type"] += "; charset=unicode_escape"
    answer = server.ask("POST", "/v1/tag", body, headers)
    assert answer.status == 200
    assert answer.json()["photos"][0]["name"].endswith(".jpg")


@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0"]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_answered(server: Client, content: bytes, start: bytes) -> None:
    answer = server.tag([("any.jpg", start + content)])
    assert answer.status == 200
    assert answer.json()["photos"][0]["error"]


@pytest.mark.parametrize("form", ["BMP", "GIF", "PNG", "TIFF", "WEBP"])
def test_photos_of_other_formats_are_tagged(server: Client, form: str) -> None:
    (found,) = server.tag([("a", image_bytes(form, mode="L"))]).json()["photos"]
    assert found["size"] == [40, 30]


def test_formats_that_are_no_photos_are_not_decoded(server: Client) -> None:
    # Pillow gives an EPS to Ghostscript.
    (found,) = server.tag([("a.jpg", image_bytes("EPS"))]).json()["photos"]
    assert found["error"] == "a.jpg is not a photo that can be read"


def test_tags_are_ranked_one_photo_at_a_time(server: Client, cat: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    rank = Tagger.rank

    def watched(self: Tagger, *arguments: Any) -> Any:
        inside.append(len(inside) - len(done))
        # Others would come in meanwhile, if they could.
        threading.Event().wait(0.05)
        found = rank(self, *arguments)
        done.append(True)
        return found

    done: list[bool] = []
    monkeypatch.setattr(Tagger, "rank", watched)
    threads = [threading.Thread(target=server.tag, args=([("cat.jpg", cat)],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [0, 0, 0]


# Probabilities


def test_a_calibrated_bundle_answers_with_probabilities(calibrated: Client, collection: Path, cat: bytes) -> None:
    about = calibrated.ask("GET", "/v1/about").json()
    assert (about["calibrated"], about["threshold"]) == (True, CALIBRATION.threshold)
    expected = Tagger(collection / "calibrated.lesa").tag(collection / "photos" / "cat-0.jpg", top=None)
    probable = [tag.label for tag in expected if (tag.probability or 0) >= CALIBRATION.threshold]
    assert 5 < len(probable) < len(expected)

    def labels(**fields: Any) -> list[str]:
        (found,) = calibrated.tag([("cat.jpg", cat)], **fields).json()["photos"]
        return [tag["label"] for tag in found["tags"]]

    # As `lesa tag` chooses.
    assert labels() == labels(top="", threshold="") == probable
    assert labels(top=7) == [tag.label for tag in expected]
    assert labels(threshold=0.97) == [tag.label for tag in expected if (tag.probability or 0) >= 0.97]
    (found,) = calibrated.tag([("cat.jpg", cat)], top=7).json()["photos"]
    for tag, other in zip(found["tags"], expected, strict=True):
        assert tag["probability"] == pytest.approx(other.probability, abs=1e-4)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, 50])
def test_a_threshold_that_is_no_probability_is_refused(
    calibrated: Client, server: Client, cat: bytes, threshold: float
) -> None:
    said = error(calibrated.tag([("cat.jpg", cat)], threshold=threshold), 422)
    assert said == f"the threshold is {threshold:g}: calibrated.lesa is calibrated, so give a probability from 0 to 1"
    assert server.tag([("cat.jpg", cat)], threshold=threshold).status == 200


def test_words_that_were_put_together_are_named(calibrated: Client, server: Client, cat: bytes) -> None:
    assert calibrated.tag([("cat.jpg", cat)], labels="red car\nmoon").json()["composed"] == ["red car"]
    assert calibrated.search({"words": "red car"}).json()["composed"] == ["red car"]
    assert calibrated.search({"words": "moon"}).json()["composed"] == []
    assert server.search({"words": "red car"}).json()["composed"] == []


def test_without_a_calibration_scores_decide(server: Client, cat: bytes) -> None:
    about = server.ask("GET", "/v1/about").json()
    assert (about["calibrated"], about["threshold"]) == (False, None)
    assert len(server.tag([("cat.jpg", cat)]).json()["photos"][0]["tags"]) == 5
    (found,) = server.tag([("cat.jpg", cat)], threshold=-1e6).json()["photos"]
    assert len(found["tags"]) == len(NAMES)
    assert not any("probability" in tag for tag in found["tags"])


# Limits


def test_a_photo_with_too_many_pixels_is_refused(server: Client) -> None:
    (found,) = server.tag([("bomb.png", image_bytes("PNG", (12_000, 12_000), "1"))]).json()["photos"]
    assert re.match(r"bomb\.png is 12000 x 12000 pixels|bomb\.png has too many pixels", found["error"])


def test_what_is_too_large_or_too_many_is_refused(small: Client, cat: bytes) -> None:
    (found,) = small.tag([("large.jpg", cat + bytes(20_000))]).json()["photos"]
    assert "large.jpg has more than the limit" in found["error"]
    assert "Too many files" in error(small.tag([("a", cat)] * 4), 400)
    assert "Too many fields" in error(small.tag(ids=["a"] * 20), 400)
    assert "5 ids were given" in error(small.tag(ids=["a"] * 5), 422)
    assert "6 labels were given, the limit is 5" in error(small.tag([("a", cat)], labels="\n".join("abcdef")), 422)
    assert "the limit of 10 letters" in error(small.tag([("a", cat)], labels="x" * 11), 422)
    assert "the limit of 10 letters" in error(small.search({"words": "x" * 11, "top": 1}), 422)
    assert "1 to 6" in error(small.tag([("a", cat)], top=7), 422)


def test_a_body_that_is_too_large_is_refused(small: Client) -> None:
    announced = {"content-type": "multipart/form-data; boundary=x", "content-length": "60001"}
    connection = socket.create_connection(("127.0.0.1", small.port), timeout=60)
    with connection, connection.makefile("rb") as answer:
        lines = "".join(f"{name}: {value}\r\n" for name, value in announced.items())
        connection.sendall(f"POST /v1/tag HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode())
        assert answer.readline().startswith(b"HTTP/1.1 413")
    # One that does not say how large it is.
    head = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n'
    pieces = (head if i == 0 else b"x" * 10_000 for i in range(8))
    answered = small.ask("POST", "/v1/tag", pieces, {"content-type": "multipart/form-data; boundary=x"})
    assert "larger than the limit" in error(answered, 413)


def test_a_search_that_is_too_large_is_not_read_to_its_end(server: Client) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    with connection, connection.makefile("rb") as answer:
        connection.sendall(b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000000\r\n\r\n")
        connection.sendall(b" " * (Limits().text + 1))
        assert answer.readline().startswith(b"HTTP/1.1 413")


def test_as_many_labels_as_allowed_are_taken_in_any_script(server: Client, cat: bytes) -> None:
    labels = "\n".join(f"{i:04}" + "語" * 96 for i in range(1000))
    assert "has no vector for '0000" in error(server.tag([("cat.jpg", cat)], labels=labels), 422)


def test_only_forms_whose_limits_hold_are_read(server: Client) -> None:
    for kind in ("application/x-www-form-urlencoded", "application/json", "text/plain; multipart/form-data", ""):
        answer = server.ask("POST", "/v1/tag", b"ids=a", {"content-type": kind} if kind else {})
        assert "multipart/form-data" in error(answer, 415)
    body, headers = form([], {"ids": "a"})
    kind = headers["content-type"].replace("multipart/form-data", "Multipart/Form-Data ")
    assert server.ask("POST", "/v1/tag", body, {"content-type": kind}).status == 200


def test_the_documentation_says_the_limits() -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    limits = Limits()
    for said in (
        f"codes of the last {limits.kept:,} uploaded photos",
        f"taken in {limits.kept:,} other photos",
        f"| a request | {limits.body >> 20} MiB, sent within {limits.seconds} s |",
        f"| a photo | {limits.photo >> 20} MiB,",
        f"| {limits.photos} uploads, {limits.ids} ids |",
        f"| {limits.labels:,}, of {limits.letters} letters each |",
        f"| a text field of the form, a search | {limits.text:,} bytes |",
        f"| tags per photo, photos per search | {limits.top} |",
        f"| {limits.places}; the server works on one",
    ):
        assert said in text, said


def begun(client: Client, path: str = "/v1/search") -> socket.socket:
    """Return a connection over which a request began and does not end."""
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 16\r\nexpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    # The server asks for the body once the request is inside.
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connection


def test_a_busy_server_says_so_and_stays_alive(collection: Path, cat: bytes) -> None:
    with serving(collection, limits=Limits(places=2)) as client:
        with begun(client) as first, begun(client):
            busy = client.tag([("cat.jpg", cat)])
            assert "busy" in error(busy, 503)
            assert busy.headers["retry-after"] == "1"
            assert client.ask("GET", "/health").status == 200
            first.sendall(b'{"words": "cat"}')
            assert b"200 OK" in first.recv(100)
            assert client.tag([("cat.jpg", cat)]).status == 200
        # Clients that hang up give their places back.
        assert client.tag([("cat.jpg", cat)]).status == 200


def test_a_request_that_does_not_end_is_given_up(collection: Path) -> None:
    with serving(collection, limits=Limits(seconds=0.2)) as client, begun(client) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no photo to tag"),
        ({"ids": "a", "top": "0"}, "top is '0'"),
        ({"ids": "a", "top": "two"}, "expected a whole number"),
        ({"ids": "a", "threshold": "nan"}, "threshold is 'nan'"),
        ({"ids": "a", "label": "cat"}, "did you mean 'labels'"),
        ({"ids": "a", "labels": "cat\nqwertz"}, "has no vector for 'qwertz'"),
    ],
)
def test_a_mistake_is_named(server: Client, collection: Path, fields: dict[str, str], message: str) -> None:
    said = error(server.tag(**fields), 422)
    assert message in said
    assert str(collection) not in said


def test_where_the_sources_of_vectors_lie_is_not_told(collection: Path, cat: bytes) -> None:
    moved = collection / "moved" / "vectors.txt"
    moved.parent.mkdir()
    moved.write_bytes((collection / "vectors.txt").read_bytes())
    with serving(collection, indexed=False, vectors=[str(moved)]) as client:
        said = error(client.tag([("cat.jpg", cat)], labels="qwertz"), 422)
    assert "vectors.txt has no vector for 'qwertz'" in said
    assert str(collection) not in said


def test_a_file_in_the_place_of_a_text_is_refused(server: Client, cat: bytes) -> None:
    body, headers = form([("labels.txt", b"cat")], {})
    answer = server.ask("POST", "/v1/tag", body.replace(b'name="photos"', b'name="labels"'), headers)
    assert error(answer, 422)
    body, headers = form([("a", b"cat"), ("b", cat)], {})
    answer = server.ask("POST", "/v1/tag", body.replace(b'name="photos"', b'name="top"', 1), headers)
    assert "expected a whole number" in error(answer, 422)


def test_a_text_in_the_place_of_a_file_is_refused(server: Client, cat: bytes) -> None:
    body, headers = form([("cat.jpg", cat)], {"photos": "cat.jpg"})
    assert error(server.ask("POST", "/v1/tag", body, headers), 422) == "photos is 'cat.jpg', expected a file"


# Who may ask


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "", "a@127.0.0.1", "localhost/", "[::1", "2130706433"]
)
def test_other_names_of_the_server_are_refused(server: Client, host: str) -> None:
    for path in ("/", "/health", "/v1/about"):
        assert "not called" in error(server.ask("GET", path, headers={"host": host}), 421)


def test_its_own_names_are_answered(collection: Path) -> None:
    hosts = [parse_host(name) for name in ("Tower.local:8750", "[fe80::1]", "fe80::2")]
    with serving(collection, indexed=False, hosts=hosts) as client:
        own = ("127.0.0.1", "localhost:1", f"[::1]:{client.port}", "LOCALHOST")
        for host in (*own, "tower.local:80", "tower.local", "[fe80::1]:80", "[fe80::2]"):
            assert client.ask("GET", "/health", headers={"host": host}).status == 200


@pytest.mark.parametrize("name", ["http://tower.local", "tower.local/", "", "a b"])
def test_a_name_that_no_request_can_have_is_refused(
    lesa: Callable[..., int], capsys: pytest.CaptureFixture[str], collection: Path, name: str
) -> None:
    with pytest.raises(LesaError, match="--allow-host"):
        parse_host(name)
    assert lesa("serve", "--bundle", collection / "small.lesa", "--port", "0", "--allow-host", name) == 2
    assert f"--allow-host is {name!r}" in capsys.readouterr().err


@given(text=st.text(max_size=20))
def test_a_host_is_a_name_or_none(text: str) -> None:
    name = host_name(text)
    assert name is None or (name in text.lower() and not set("/@[]") & set(name))


def test_pages_of_another_origin_are_refused(server: Client, cat: bytes) -> None:
    own = f"127.0.0.1:{server.port}"
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://[", "", own, f"http://a@{own}"):
        answer = server.tag([("cat.jpg", cat)], headers={"origin": origin})
        assert "may not use this server" in error(answer, 403)
        assert "access-control-allow-origin" not in answer.headers
    for origin in (f"http://{own}", f"https://{own}"):
        assert server.tag([("cat.jpg", cat)], headers={"origin": origin}).status == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/health", "/v1/about", "/nothing", "/v1/tag", "/openapi.json"])
def test_every_answer_carries_the_strict_headers(server: Client, path: str) -> None:
    headers = server.ask("GET", path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/../app.py",
        "/..%2fapp.py",
        "/%2e%2e/app.py",
        "/static/../../app.py",
        "//etc/passwd",
        "/docs",
        "/redoc",
        "/v1/thumbnails/..%2f..%2fa",
    ],
)
def test_no_other_file_is_served(server: Client, path: str) -> None:
    assert error(server.ask("GET", path), 404)


def test_a_request_for_the_headers_alone_is_answered(server: Client) -> None:
    for path in ("/", "/health", "/v1/about", "/openapi.json"):
        answer = server.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
    assert server.ask("HEAD", "/v1/thumbnails/a").status == 404


def test_the_page_asks_nothing_of_others_and_holds_no_inline_code() -> None:
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import|innerHTML|\beval\(", text), file
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", page)


def test_the_page_is_in_the_package() -> None:
    found = re.findall(r"^lesa = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)
    patterns = re.findall(r'"([^"]+)"', found[0])
    for file in STATIC.iterdir():
        name = file.relative_to(ROOT / "src" / "lesa").as_posix()
        assert any(fnmatch(name, pattern) for pattern in patterns), name


# Search


def test_the_server_finds_what_the_index_finds(server: Client, collection: Path) -> None:
    answer = server.search({"words": " red ", "top": 4})
    assert answer.json()["words"] == "red"
    found = answer.json()["photos"]
    hits = Index(collection / "photos.index", Tagger(collection / "small.lesa")).find("red", 4)
    assert [photo["name"] for photo in found] == [hit.photo for hit in hits]
    assert [photo["box"] for photo in found] == [list(hit.box) for hit in hits]
    for photo in found:
        picture = server.ask("GET", f"/v1/thumbnails/{photo['id']}")
        assert picture.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(picture.body)).size == (120, 80)
        assert photo["name"] not in photo["id"]


def test_pictures_are_shown_only_of_photos_that_were_found(server: Client, collection: Path) -> None:
    for made_up in ("cat-0.jpg", "0" * 32, "%00"):
        assert "search again" in error(server.ask("GET", f"/v1/thumbnails/{made_up}"), 404)
    photo = collection / "photos" / "cat-1.jpg"
    found = {each["name"]: each["id"] for each in server.search({"words": "cat", "top": 30}).json()["photos"]}
    photo.rename(collection / "away.jpg")
    try:
        said = error(server.ask("GET", f"/v1/thumbnails/{found['cat-1.jpg']}"), 422)
    finally:
        (collection / "away.jpg").rename(photo)
    assert said == "cat-1.jpg does not exist"


@pytest.mark.parametrize(
    "asked", [None, [], {}, {"words": ""}, {"words": " "}, {"words": 1}, {"words": None, "top": 1}, "[" * 5000]
)
def test_a_search_without_words_is_refused(server: Client, asked: Any) -> None:
    assert "send JSON with words" in error(server.search(asked), 400)


def test_a_search_that_cannot_be_done_says_why(server: Client, collection: Path) -> None:
    assert "top is" in error(server.search({"words": "cat", "top": True}), 422)
    assert "top is" in error(server.search({"words": "cat", "top": 2.5}), 422)
    assert "no vector for 'qwertz'" in error(server.search({"words": "qwertz"}), 422)
    assert "is not text" in error(server.search({"words": "\ud800"}), 422)
    with serving(collection, indexed=False) as client:
        assert "start the server with --index" in error(client.search({"words": "cat"}), 422)


# The description


def conforms(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a value is what a schema of this interface says."""
    if "$ref" in schema:
        return conforms(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    kinds = {
        "string": str,
        "number": (int, float),
        "integer": int,
        "boolean": bool,
        "array": list,
        "object": dict,
        "null": type(None),
    }
    if "anyOf" in schema:
        return any(conforms(value, each, schemas) for each in schema["anyOf"])
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if isinstance(value, list) and "prefixItems" in schema:
        places = schema["prefixItems"]
        return len(value) == len(places) and all(map(conforms, value, places, [schemas] * len(places)))
    if isinstance(value, list):
        return all(conforms(each, schema["items"], schemas) for each in value)
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return set(schema.get("required", [])) <= set(value) <= set(known) and all(
            conforms(each, known[name], schemas) for name, each in value.items()
        )
    return True


@pytest.mark.parametrize("name", ["server", "calibrated"])
def test_the_description_is_of_these_answers(request: pytest.FixtureRequest, cat: bytes, name: str) -> None:
    server: Client = request.getfixturevalue(name)
    about = server.ask("GET", "/openapi.json").json()
    assert about["openapi"] == "3.1.0"
    answers = {
        ("/health", "get"): server.ask("GET", "/health"),
        ("/v1/about", "get"): server.ask("GET", "/v1/about"),
        ("/v1/tag", "post"): server.tag([("a", cat), ("b", b"")], ids="gone"),
        ("/v1/search", "post"): server.search({"words": "cat"}),
    }
    described = {(path, method) for path, methods in about["paths"].items() for method in methods}
    assert described == {*answers, ("/v1/thumbnails/{id}", "get")}
    schemas = about["components"]["schemas"]
    for (path, method), answer in answers.items():
        schema = about["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
        assert conforms(answer.json(), schema, schemas), path
    assert conforms(server.ask("GET", "/nothing").json(), {"$ref": "ErrorAnswer"}, schemas)
    fields = about["paths"]["/v1/tag"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(fields) == {"photos", "ids", "labels", "top", "threshold"}
    # FastAPI's own errors do not occur, so they are not described.
    assert "HTTPValidationError" not in schemas


# The command


def test_the_command_serves_until_it_is_stopped(collection: Path) -> None:
    command = [sys.executable, "-m", "lesa", "serve", "--bundle", str(collection / "small.lesa"), "--port", "0"]

    def obey_interrupts() -> None:
        # A shell starts what runs in its background with the signal ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=obey_interrupts) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/", line)[0])
        assert Client(port).ask("GET", "/health").json()["status"] == "ok"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    # As a shell counts a program that was interrupted.
    assert process.returncode == 128 + signal.SIGINT


def test_a_port_that_is_taken_is_a_clear_error(
    lesa: Callable[..., int], capsys: pytest.CaptureFixture[str], server: Client, collection: Path
) -> None:
    assert lesa("serve", "--bundle", collection / "small.lesa", "--port", str(server.port)) == 2
    said = capsys.readouterr().err
    assert f"cannot listen on port {server.port} of 127.0.0.1" in said
    assert "--port" in said
    assert lesa("serve", "--bundle", collection / "small.lesa", "--host", "no such host") == 2
    assert "--host" in capsys.readouterr().err


def test_an_index_of_another_bundle_is_refused(
    lesa: Callable[..., int], capsys: pytest.CaptureFixture[str], collection: Path, tmp_path: Path
) -> None:
    assert lesa("serve", "--bundle", collection / "small.lesa", "--index", tmp_path, "--port", "0") == 2
    assert "is not an index" in capsys.readouterr().err
    assert lesa("serve", "--bundle", tmp_path / "none.lesa", "--port", "0") == 2
    assert "does not exist" in capsys.readouterr().err


def test_without_the_extra_the_error_names_it(
    lesa: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_serve, "NEEDED", ("fastapi", "no_such_library"))
    assert lesa("serve", "--bundle", "x.lesa") == 2
    assert "needs no_such_library: pip install 'lesa-zsl[web]'" in capsys.readouterr().err


def test_only_the_server_imports_what_it_needs(collection: Path) -> None:
    web = {"fastapi", "pydantic", "starlette", "uvicorn", "anyio", "python_multipart", "lesa.web"}
    learning = {"torch", "scipy", "transformers", "lesa.learn"}
    run = "try: cli({0}, standalone_mode=False)\nexcept SystemExit: pass\n"
    photo = str(collection / "photos" / "cat-0.jpg")
    for code, heavy in [
        (run.format(["--help"]), web | learning),
        (run.format(["serve", "--help"]), web | learning),
        (run.format(["tag", photo, "--bundle", str(collection / "small.lesa")]), web | learning),
        ("from lesa.web.app import make_app\nfrom lesa.cli.serve import make_server", learning),
    ]:
        script = (
            f"import sys\nfrom lesa.cli.main import cli\n{code}\nsys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_browser_of_the_console_does_not_stop_the_server(
    lesa: Callable[..., int], collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, opened = threading.Event(), threading.Event()
    saw: list[bool] = []

    def browse(url: str) -> None:
        saw.append(runs.wait(5))
        opened.set()

    class Runs:
        def run(self, sockets: list[socket.socket]) -> None:
            runs.set()

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setattr(cli_serve, "make_server", lambda *arguments: Runs())
    assert lesa("serve", "--bundle", collection / "small.lesa", "--port", "0", "--open") == 0
    assert opened.wait(60)
    assert saw == [True]


def test_addresses_for_a_browser() -> None:
    assert page_url("0.0.0.0", 1) == "http://127.0.0.1:1/"
    assert page_url("::1", 80) == "http://[::1]:80/"
    assert page_url("tower.local", 80) == "http://tower.local:80/"
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "tower.local")] == [True] * 3 + [
        False
    ] * 2
