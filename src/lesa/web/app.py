"""The HTTP interface: routes, and how requests are read. What they ask for is done by `lesa.web.service`."""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from lesa import __version__
from lesa.errors import LesaError, did_you_mean
from lesa.tagger import Labels
from lesa.web.guard import Guard, answer, problem
from lesa.web.openapi import document
from lesa.web.service import GONE, Json, Service

STATIC = Path(__file__).parent / "static"
FIELDS = ("photos", "ids", "labels", "top", "threshold")
"""Of the form that `/v1/tag` takes."""
TOP_TAGS, TOP_PHOTOS = 5, 12
FORM = "multipart/form-data"
CACHED = {"cache-control": "private, max-age=600"}


def make_app(service: Service, hosts: Collection[str] = ()) -> ASGIApp:
    """Return the application (ASGI).

    Args:
        service: what does the work.
        hosts: names and addresses, besides loopback, that the server may be called by.
    """
    routes = [
        Route("/health", health),
        Route("/openapi.json", openapi),
        Route("/v1/about", about),
        Route("/v1/tag", tag, methods=["POST"]),
        Route("/v1/search", search, methods=["POST"]),
        Route("/v1/thumbnails/{id}", thumbnail),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    handlers: dict[Any, Any] = {
        LesaError: mistake,
        HTTPException: refused,
        ClientDisconnect: left,
        Exception: failed,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.state.service = service
    return Guard(app, hosts, service.limits)


async def health(request: Request) -> Response:
    """Say that the server runs."""
    return answer({"status": "ok", "version": __version__})


async def openapi(request: Request) -> Response:
    """Describe the interface."""
    return answer(document(_service(request).limits))


async def about(request: Request) -> Response:
    """Say what is served."""
    return answer(_service(request).about())


async def tag(request: Request) -> Response:
    """Tag photos: uploaded ones, and ones that the server holds."""
    service = _service(request)
    limits = service.limits
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, f"send a form ({FORM}): see /openapi.json")
    form = request.form(max_files=limits.photos, max_fields=limits.ids + len(FIELDS), max_part_size=limits.text)
    async with form as fields:
        return answer(await run_in_threadpool(_tag, service, fields))


async def search(request: Request) -> Response:
    """Search the index."""
    service = _service(request)
    asked = _asked(await _body(request, service.limits.text))
    top = _whole(asked.get("top", TOP_PHOTOS), service.limits.top)
    return answer(await run_in_threadpool(service.search, asked["words"], top))


async def thumbnail(request: Request) -> Response:
    """Show a photo that a search found."""
    content = await run_in_threadpool(_service(request).thumbnail, request.path_params["id"])
    if content is None:
        return problem(404, "no search found a photo of this id lately: search again")
    return Response(content, media_type="image/jpeg", headers=CACHED)


async def mistake(request: Request, error: LesaError) -> Response:
    """Answer what cannot be done as asked. Where the server's files lie is nobody's business."""
    return problem(422, _service(request).without_paths(str(error)))


async def refused(request: Request, error: HTTPException) -> Response:
    """Answer what is not a request of this interface."""
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def left(request: Request, error: ClientDisconnect) -> Response:
    """Answer nobody: the client went before its request was whole."""
    return Response(status_code=400)


async def failed(request: Request, error: Exception) -> Response:
    """Answer what is a mistake of ours; the server's log has the details."""
    return problem(500, "the server made a mistake: its window says which")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _tag(service: Service, fields: FormData) -> Json:
    """Tag what a form asks for; a photo that cannot be read has an error, the rest is done."""
    if unknown := [name for name in fields if name not in FIELDS]:
        raise LesaError(f"there is no field {unknown[0]!r}: {did_you_mean(unknown[0], FIELDS)}")
    uploads = [each for each in fields.getlist("photos") if isinstance(each, UploadFile)]
    ids = _texts(fields, "ids")
    if not uploads and not ids:
        raise LesaError("there is no photo to tag: send at least one in the field 'photos', or an id in 'ids'")
    if len(ids) > service.limits.ids:
        raise LesaError(f"{len(ids)} ids were given, more than the limit of {service.limits.ids}")
    lines = [line.strip() for text in _texts(fields, "labels") for line in text.splitlines()]
    labels = service.labels([line for line in lines if line])
    limits = _choice(service, fields, own=not any(lines))
    tagged = [_upload(service, each, labels, *limits) for each in uploads]
    held = [service.tags(each, labels, *limits) or {"id": each, "error": GONE, "gone": True} for each in ids]
    return {"labels": len(labels.names), "composed": list(labels.composed), "photos": tagged + held}


def _choice(service: Service, fields: FormData, own: bool) -> tuple[int, float | None]:
    """Return how many tags a photo gets at most, and the least probability or score of a tag, as `lesa tag` does."""
    top, threshold = fields.get("top") or None, _number(fields.get("threshold"))
    calibration = service.tagger.bundle.calibration
    if calibration and threshold is not None and not 0 <= threshold <= 1:
        raise LesaError(f"threshold is {threshold:g}: the bundle is calibrated, send a probability from 0 to 1")
    if top is not None:
        return _whole(top, service.limits.top), threshold
    # It was found for the bundle's own labels.
    if calibration and threshold is None and own:
        threshold = calibration.threshold
    return TOP_TAGS if threshold is None else service.limits.top, threshold


def _upload(service: Service, file: UploadFile, labels: Labels, top: int, threshold: float | None) -> Json:
    # A name is what an answer calls the photo. It is never a path.
    name = (file.filename or "photo")[:255]
    try:
        # No more than tells that it is too large.
        key = service.upload(file.file.read(service.limits.photo + 1), name)
    except LesaError as error:
        return {"name": name, "error": str(error)}
    return {"name": name} | (service.tags(key, labels, top, threshold) or {"id": key, "error": GONE, "gone": True})


def _texts(fields: FormData, name: str) -> list[str]:
    values = fields.getlist(name)
    if not all(isinstance(value, str) for value in values):
        raise LesaError(f"the field {name!r} is a file: send it as text")
    return [str(value) for value in values]


async def _body(request: Request, most: int) -> bytes:
    """Return the body of a request; one that is larger than `most` bytes is not read to its end."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"a search has at most {most} bytes: send fewer words")
    return bytes(body)


def _asked(body: bytes) -> Json:
    """Return the JSON of a search."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or not isinstance(asked.get("words"), str) or not asked["words"].strip():
        raise HTTPException(400, 'send JSON with words to search for: {"words": "red car", "top": 12}')
    return {**asked, "words": asked["words"].strip()}


def _whole(value: Any, most: int) -> int:
    text = str(value)
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and 1 <= int(text) <= most):
        raise LesaError(f"top is {text[:20]!r}, expected a whole number from 1 to {most}")
    return int(text)


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise LesaError(f"threshold is {str(value)[:20]!r}, expected a number")
    return number
