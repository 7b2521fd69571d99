"""Requests and answers of the HTTP interface: `/openapi.json` describes both, and the requests are checked."""

from typing import Annotated, Any, cast

from fastapi import UploadFile
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
)
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import UploadFile as SentFile

from lesa.errors import did_you_mean
from lesa.web.limits import Limits

TOP_PHOTOS = 12
"""Photos that a search returns if the request does not say."""


def _whole(value: Any, info: ValidationInfo) -> int:
    """Return a whole number within the server's `Limits`, the context of the check; forms send it as text."""
    text, most = str(value), cast(Limits, info.context).top
    # Python's `int` also takes 1_0, and digits of other scripts.
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and 1 <= int(text) <= most):
        raise ValueError
    return int(text)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text.strip()


def _none_if_empty(value: Any) -> Any:
    """Return None for a field of a form that was left empty."""
    return None if value == "" else value


def _drop_null_defaults(schema: dict[str, Any]) -> None:
    """Change a model's schema: an optional field is left out, it is never null."""
    for field in schema["properties"].values():
        if field.get("default", 0) is None:
            del field["default"]


_Absent = SkipJsonSchema[None]
"""The value of a field that is left out; the schema does not show it."""
_Whole = Annotated[PositiveInt, BeforeValidator(_whole)]
_EmptyIsNone = BeforeValidator(_none_if_empty)
_Size = Annotated[tuple[int, int], Field(description="Width and height of the upright photo in pixels.")]
_Box = Annotated[
    tuple[int, int, int, int], Field(description="Left, top, right, bottom in the upright photo's pixels.")
]
_Composed = Annotated[
    list[str], Field(description="Labels or words whose vector is put together from their words' vectors, roughly.")
]


class TagRequest(BaseModel, extra="forbid", json_schema_extra=_drop_null_defaults):
    """The form of `/v1/tag`."""

    photos: list[UploadFile] = Field(
        default=[], description="Files; for their number and size see `limits` of /v1/about."
    )
    ids: list[str] = Field(default=[], description="Photos that the server holds: their `id` in earlier answers.")
    labels: list[str] = Field(
        default=[], description="Any words, one label per line; the bundle's own labels if empty."
    )
    top: Annotated[_Whole | _Absent, _EmptyIsNone] = Field(
        default=None, description="Tags per photo, at most. If neither this nor `threshold` is sent, see `threshold`."
    )
    threshold: Annotated[FiniteFloat | _Absent, _EmptyIsNone] = Field(
        default=None,
        description=(
            "The least probability of a tag, 0 to 1; the least score if the bundle is not calibrated. If neither this "
            "nor `top` is sent, a calibrated bundle's own threshold (`threshold` of /v1/about) decides about its own "
            "labels, and otherwise there are 5 tags per photo."
        ),
    )


class SearchRequest(BaseModel):
    """The JSON of `/v1/search`."""

    words: Annotated[str, AfterValidator(_not_blank)] = Field(description="The words to search for.")
    top: _Whole = Field(default=TOP_PHOTOS, description="Photos, at most.")


class ErrorAnswer(BaseModel):
    """Why there is no other answer."""

    error: str = Field(description="What is wrong, where, and what to do.")


class HealthAnswer(BaseModel):
    """That the server runs."""

    status: str
    version: str


class IndexEntry(BaseModel):
    """An index."""

    photos: int = Field(description="Number of photos.")
    name: str = Field(description="The name of the folder that holds the photos.")


class AboutAnswer(BaseModel):
    """The bundle, the index and the limits of a server."""

    bundle: str = Field(description="The bundle's file name.")
    labels: list[str] = Field(description="The bundle's own labels.")
    calibrated: bool = Field(description="Whether tags have probabilities.")
    threshold: float | None = Field(description="The bundle's own threshold, if it is calibrated.")
    index: IndexEntry | None = Field(description="The index that is searched, if there is one.")
    limits: dict[str, int] = Field(description="The most that a request may hold; `photo` and `body` are in bytes.")


class TagEntry(BaseModel, json_schema_extra=_drop_null_defaults):
    """A tag: the fields that `lesa tag` writes, and `evidence`."""

    label: str
    score: float = Field(description="A margin without bounds, not a probability.")
    seen: bool = Field(description="Whether training photos carried the label.")
    box: _Box
    probability: float | _Absent = Field(
        default=None, description="The probability that the label is present; only if the bundle is calibrated."
    )
    parents: list[str] | _Absent = Field(
        default=None, description="The things that the label is a kind of, the outermost first; only if there are some."
    )
    evidence: list[list[float]] = Field(
        description="What each region alone says for the label, in units of the score: rows of the grid, from the top."
    )


class PhotoEntry(BaseModel, json_schema_extra=_drop_null_defaults):
    """A photo with its tags, or with an `error`."""

    id: str | _Absent = Field(
        default=None, description="Send it in `ids` to ask for other labels without sending the photo again."
    )
    name: str | _Absent = Field(default=None, description="The file name that was sent with the photo.")
    size: _Size | _Absent = None
    crop: tuple[float, float, float, float] | _Absent = Field(
        default=None,
        description="The part of the photo that `evidence` covers: left, top, right, bottom in pixels.",
    )
    full_colour: float | _Absent = Field(
        default=None,
        description="The evidence that gets the full colour: the most that any label asked for or of the bundle has.",
    )
    tags: list[TagEntry] | _Absent = Field(default=None, description="The best first.")
    error: str | _Absent = Field(
        default=None, description="Why this photo has no tags; the other photos are not affected."
    )
    gone: bool | _Absent = Field(default=None, description="Whether the server no longer holds the photo of this id.")


class TagAnswer(BaseModel):
    """Tags of photos."""

    labels: int = Field(description="Number of labels to choose from.")
    composed: _Composed
    photos: list[PhotoEntry] = Field(
        description="Uploaded photos first, then photos of `ids`; both in the order of the request."
    )


class HitEntry(BaseModel):
    """A photo that was found."""

    id: str = Field(description="The id of its picture: see /v1/thumbnails/{id}.")
    name: str = Field(description="Its path below the index's folder.")
    score: float
    box: _Box
    size: _Size


class SearchAnswer(BaseModel):
    """Photos that were found."""

    words: str
    composed: _Composed
    photos: list[HitEntry] = Field(description="The best first.")


def one_sentence(error: ValidationError, limits: Limits) -> str:
    """Return the first thing that is wrong with a request."""
    first = error.errors(include_url=False)[0]
    field, given = str(first["loc"][0]), first["input"]
    if first["type"] == "extra_forbidden":
        return f"there is no field {field!r}: {did_you_mean(field, TagRequest.model_fields)}"
    expected = {
        "photos": "a file",
        "top": f"a whole number from 1 to {limits.top}",
        "threshold": "a number",
    }.get(field, "text")
    shown = "a file" if isinstance(given, SentFile) else repr(str(given)[:20])
    return f"{field} is {shown}, expected {expected}"
