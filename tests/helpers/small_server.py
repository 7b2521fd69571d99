"""A real server with a small bundle and its index, on a free port, and requests to it as any client makes them."""

import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.small_run import make_collection, make_run
from lesa.bundle import with_calibration
from lesa.calibration import Calibration
from lesa.cli.serve import listen, make_server
from lesa.index.search import Index
from lesa.index.update import update_index
from lesa.learn.export import export_run
from lesa.tagger import Tagger
from lesa.web.limits import Limits
from lesa.web.service import Service

BOUNDARY = "a-line-that-no-photo-holds"
CALIBRATION = Calibration(
    slope=1, photo_factor=0, bias=0.1, seen_bias=-0.2, labels={"cat": 0.5, "flag": -0.5}, threshold=0.4, report={}
)
PATIENCE = 60
"""Seconds after which a request without an answer fails."""


@dataclass(frozen=True)
class Answer:
    """The server's answer to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Sends requests to the server at a port."""

    port: int

    def ask(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def tag(
        self, photos: Sequence[tuple[str, bytes]] = (), headers: dict[str, str] | None = None, **fields: Any
    ) -> Answer:
        body, kind = form(photos, fields)
        return self.ask("POST", "/v1/tag", body, kind | (headers or {}))

    def search(self, asked: Any) -> Answer:
        return self.ask("POST", "/v1/search", json.dumps(asked).encode(), {"content-type": "application/json"})


def form(photos: Sequence[tuple[str, bytes]], fields: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return a multipart body and its header; a value that is a list becomes several fields of the same name."""
    parts = [
        f'name="{name}"\r\n\r\n{each}'.encode()
        for name, value in fields.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    parts += [f'name="photos"; filename="{name}"\r\n\r\n'.encode() + content for name, content in photos]
    start = f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
    body = b"".join(start + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def make_small_bundle(folder: Path) -> None:
    """Write photos, vectors, `small.lesa` and `photos.index` below a folder.

    Also write `calibrated.lesa`, which composes phrases as the package's bundle does, and `calibrated.index`.
    """
    make_collection(folder)
    run = make_run(folder, folder / "run")
    export_run(run, folder / "small.lesa", words=["moon"])
    update_index(folder / "photos.index", folder / "photos", Tagger(folder / "small.lesa"))
    export_run(run, folder / "calibrated.lesa", words=["moon", "red", "car"], offline=True)
    with_calibration(folder / "calibrated.lesa", CALIBRATION, folder / "calibrated.lesa")
    update_index(folder / "calibrated.index", folder / "photos", Tagger(folder / "calibrated.lesa"))


@contextmanager
def serving(
    folder: Path,
    indexed: bool = True,
    limits: Limits | None = None,
    hosts: Sequence[str] = (),
    calibrated: bool = False,
    vectors: Sequence[str] = (),
) -> Iterator[Client]:
    """Serve a bundle that `make_small_bundle` wrote, as `lesa serve` does, in a thread."""
    bundle, index = ("calibrated.lesa", "calibrated.index") if calibrated else ("small.lesa", "photos.index")
    tagger = Tagger(folder / bundle, vectors)
    service = Service(tagger, Index(folder / index, tagger) if indexed else None, limits, vectors)
    with listen("127.0.0.1", 0) as listener:
        server = make_server(service, hosts)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
