"""The HTTP interface: its routes, and how requests are read. The work itself is done by `lesa.web.service`."""

import json
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi import Path as PathField
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as SentFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from lesa import __version__
from lesa.errors import LesaError
from lesa.tagger import Labels
from lesa.web.guard import Guard, answer, problem
from lesa.web.models import (
    AboutAnswer,
    ErrorAnswer,
    HealthAnswer,
    SearchAnswer,
    SearchRequest,
    TagAnswer,
    TagRequest,
    one_sentence,
)
from lesa.web.service import GONE, Json, Service

STATIC = Path(__file__).parent / "static"
FORM = "multipart/form-data"
LISTS = ("photos", "ids", "labels")
"""Fields of the form that may be sent several times."""
CACHED = {"cache-control": "private, max-age=600"}


def make_app(service: Service, hosts: Collection[str] = ()) -> ASGIApp:
    """Return the application (ASGI).

    Args:
        service: does the work.
        hosts: names and addresses, besides loopback, that the server may be called by.
    """
    app = FastAPI(
        title="lesa serve",
        version=__version__,
        description="Tags for photos by any words, with the place of each; photos of an index by any words.",
        # Both load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # Settings of the environment could send facts about requests elsewhere.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        responses={"default": {"model": ErrorAnswer, "description": "What is wrong, where, and what to do."}},
        exception_handlers={
            LesaError: _refuse_mistake,
            ValidationError: _refuse_field,
            HTTPException: _refuse_request,
            ClientDisconnect: _answer_nobody,
            Exception: _admit_failure,
        },
    )
    app.state.service = service
    app.include_router(router)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return Guard(app, hosts, service.limits)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]


async def _read_form(request: Request, service: Served) -> AsyncIterator[TagRequest]:
    """Yield the form of `/v1/tag`; its files are closed afterwards.

    FastAPI's own form parameters do not fit: the limits are those of this server, and only forms of one type are read.
    """
    limits = service.limits
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, f"send a form ({FORM}): see /openapi.json")
    form = request.form(
        max_files=limits.photos, max_fields=limits.ids + len(TagRequest.model_fields), max_part_size=limits.text
    )
    async with form as fields:
        yield TagRequest.model_validate(_given(fields), context=limits)


def _given(fields: FormData) -> Json:
    return {name: fields.getlist(name) if name in LISTS else fields[name] for name in fields}


async def _read_search(request: Request, service: Served) -> SearchRequest:
    """Return the JSON of `/v1/search`; a body that is too large is not read to its end."""
    most, body = service.limits.text, bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"the search is larger than the limit of {most} bytes: send fewer words")
    try:
        return SearchRequest.model_validate(json.loads(body), context=service.limits)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("top",):
            raise
    except (ValueError, RecursionError):
        pass
    raise HTTPException(400, 'send JSON with words to search for: {"words": "red car", "top": 12}')


def _body(model: type[BaseModel], media: str) -> Json:
    """Return how `/openapi.json` describes the body of a request that we read ourselves."""
    return {"requestBody": {"required": True, "content": {media: {"schema": model.model_json_schema()}}}}


router = APIRouter()


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Whether the server runs.", name="health", response_model=HealthAnswer)
async def _health() -> Response:
    return answer({"status": "ok", "version": __version__})


@router.head("/v1/about", include_in_schema=False)
@router.get(
    "/v1/about",
    summary="The bundle, its labels, the index, the limits.",
    name="about",
    response_model=AboutAnswer,
)
async def _about(service: Served) -> Response:
    return answer(service.about())


@router.post(
    "/v1/tag",
    summary="Tags for photos that are uploaded, and for photos whose codes the server holds under an id.",
    name="tag",
    response_model=TagAnswer,
    openapi_extra=_body(TagRequest, FORM),
)
def _tag(service: Served, asked: Annotated[TagRequest, Depends(_read_form)]) -> Response:
    if not asked.photos and not asked.ids:
        raise LesaError("there is no photo to tag: send at least one in the field 'photos', or an id in 'ids'")
    if len(asked.ids) > service.limits.ids:
        raise LesaError(f"{len(asked.ids)} ids were given, more than the limit of {service.limits.ids}")
    lines = [line.strip() for text in asked.labels for line in text.splitlines()]
    labels = service.labels([line for line in lines if line])
    service.tagger.check_threshold(asked.threshold)
    top, threshold = service.tagger.limits(labels, asked.top, asked.threshold)
    limits = top or service.limits.top, threshold
    tagged = [_upload(service, each, labels, *limits) for each in asked.photos]
    held = [service.tags(each, labels, *limits) or {"id": each, "error": GONE, "gone": True} for each in asked.ids]
    return answer({"labels": len(labels.names), "composed": list(labels.composed), "photos": tagged + held})


@router.post(
    "/v1/search",
    summary="Photos of the index by any words.",
    name="search",
    response_model=SearchAnswer,
    openapi_extra=_body(SearchRequest, "application/json"),
)
def _search(service: Served, asked: Annotated[SearchRequest, Depends(_read_search)]) -> Response:
    return answer(service.search(asked.words, asked.top))


@router.head("/v1/thumbnails/{id}", include_in_schema=False)
@router.get(
    "/v1/thumbnails/{id}",
    summary="A small picture of a photo that a search found.",
    name="thumbnail",
    response_class=Response,
    responses={200: {"description": "A JPEG.", "content": {"image/jpeg": {}}}},
)
def _thumbnail(service: Served, key: Annotated[str, PathField(alias="id", description="From a search.")]) -> Response:
    content = service.thumbnail(key)
    if content is None:
        return problem(404, "no recent search found a photo of this id: search again")
    return Response(content, media_type="image/jpeg", headers=CACHED)


def _upload(service: Service, file: SentFile, labels: Labels, top: int, threshold: float | None) -> Json:
    """Tag one photo; if it cannot be read, return its error, so that the others are tagged."""
    # The name is only repeated in the answer. It is never a path.
    name = (file.filename or "photo")[:255]
    try:
        # One byte more than the limit tells that the photo is too large.
        key = service.upload(file.file.read(service.limits.photo + 1), name)
    except LesaError as error:
        return {"name": name, "error": str(error)}
    return {"name": name} | (service.tags(key, labels, top, threshold) or {"id": key, "error": GONE, "gone": True})


async def _refuse_mistake(request: Request, error: LesaError) -> Response:
    """Answer a request that cannot be done, without paths of the server's files."""
    service = await _service(request)
    return problem(422, service.without_paths(str(error)))


async def _refuse_field(request: Request, error: ValidationError) -> Response:
    service = await _service(request)
    return problem(422, one_sentence(error, service.limits))


async def _refuse_request(request: Request, error: HTTPException) -> Response:
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def _answer_nobody(request: Request, error: ClientDisconnect) -> Response:
    """End a request whose client has left before all of it was sent."""
    return Response(status_code=400)


async def _admit_failure(request: Request, error: Exception) -> Response:
    return problem(500, "the server made a mistake: its window shows the details")
