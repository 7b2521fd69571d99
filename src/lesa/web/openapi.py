"""The interface's description, as `/openapi.json` serves it (OpenAPI 3.1)."""

from typing import Any

from lesa import __version__
from lesa.web.limits import Limits

Json = dict[str, Any]

TEXT, NUMBER, WHOLE, YES = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
SIZE = {"type": "array", "items": WHOLE, "description": "Width and height of the upright photo in pixels."}
COMPOSED = {"type": "array", "items": TEXT, "description": "What was put together from its words' vectors, roughly."}
BOX = {"type": "array", "items": WHOLE, "description": "Left, top, right, bottom in the upright photo's pixels."}


def document(limits: Limits) -> Json:
    """Return the description of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lesa serve",
            "version": __version__,
            "description": "Tags for photos by any words, with the place of each; photos of an index by any words.",
        },
        "paths": {
            "/health": {"get": _operation("Whether the server runs.", "Health")},
            "/v1/about": {"get": _operation("The bundle, its labels, the index, the limits.", "About")},
            "/v1/tag": {"post": _operation(TAG_TEXT, "Tagged", _form(limits), "multipart/form-data")},
            "/v1/search": {"post": _operation("Photos of the index by any words.", "Found", _query(limits))},
            "/v1/thumbnails/{id}": {"get": _thumbnail()},
        },
        "components": {"schemas": SCHEMAS},
    }


TOP_TEXT = "Tags a photo at most; if empty, 5 where no threshold decides."
THRESHOLD_TEXT = (
    "The least score of a tag; the least probability, 0 to 1, where the bundle is calibrated. "
    "If neither this nor `top` is sent, the bundle's own (`threshold` of /v1/about), where it is calibrated."
)
TAG_TEXT = "Tags for photos that are uploaded, and for photos whose codes the server holds under an id."


def _operation(summary: str, schema: str, body: Json | None = None, media: str = "application/json") -> Json:
    """Describe what a path does."""
    request = {"requestBody": {"required": True, "content": {media: {"schema": body}}}} if body else {}
    answers = {"200": _content(summary, schema), "default": _content("What went wrong, and what to do.", "Error")}
    return {"summary": summary, **request, "responses": answers}


def _content(description: str, schema: str) -> Json:
    """Describe an answer."""
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


def _thumbnail() -> Json:
    """Describe the path of thumbnails."""
    described = _operation("A small picture of a photo that a search found.", "Error")
    described["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": TEXT}]
    described["responses"]["200"] = {"description": "A JPEG.", "content": {"image/jpeg": {}}}
    return described


def _form(limits: Limits) -> Json:
    """Describe the form of `/v1/tag`."""
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    fields = {
        "photos": {
            "type": "array",
            "items": file,
            "maxItems": limits.photos,
            "description": f"At most {limits.photo} bytes each; {limits.body} a request.",
        },
        "ids": {"type": "array", "items": TEXT, "maxItems": limits.ids, "description": "Of earlier answers."},
        "labels": TEXT | {"description": "One label a line, any words; the bundle's own labels if empty."},
        "top": WHOLE | {"minimum": 1, "maximum": limits.top, "description": TOP_TEXT},
        "threshold": NUMBER | {"description": THRESHOLD_TEXT},
    }
    return {"type": "object", "properties": fields}


def _query(limits: Limits) -> Json:
    """Describe the body of `/v1/search`."""
    top = WHOLE | {"minimum": 1, "maximum": limits.top, "default": 12, "description": "Photos at most."}
    return _record({"words": TEXT | {"maxLength": limits.letters}, "top": top}, optional={"top"})


def _record(properties: Json, optional: set[str] | frozenset[str] = frozenset()) -> Json:
    """Describe an object whose keys are all there but for the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _many(schema: str) -> Json:
    """Describe a list."""
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}


SCHEMAS = {
    "Error": _record({"error": TEXT}),
    "Health": _record({"status": TEXT, "version": TEXT}),
    "About": _record(
        {
            "bundle": TEXT,
            "labels": {"type": "array", "items": TEXT},
            "calibrated": YES | {"description": "Whether tags have probabilities."},
            "threshold": {
                "type": ["number", "null"],
                "description": "The least probability of a tag, unless the request says.",
            },
            "index": _record({"photos": WHOLE, "name": TEXT}) | {"type": ["object", "null"]},
            "limits": {"type": "object", "additionalProperties": WHOLE},
        }
    ),
    "Tagged": _record(
        {
            "labels": WHOLE | {"description": "How many to choose from."},
            "composed": COMPOSED,
            "photos": _many("Photo"),
        }
    ),
    "Photo": _record(
        {
            "id": TEXT | {"description": "To ask for other labels without sending the photo again."},
            "name": TEXT | {"description": "As it was uploaded."},
            "size": SIZE,
            "view": {
                "type": "array",
                "items": NUMBER,
                "description": "The part of the photo that the maps cover: left, top, right, bottom in pixels.",
            },
            "tags": _many("Tag"),
            "error": TEXT | {"description": "Why there are no tags; the request's other photos are done."},
            "gone": YES | {"description": "The server no longer holds the photo of this id."},
        },
        optional={"id", "name", "size", "view", "tags", "error", "gone"},
    ),
    "Tag": _record(
        {
            "label": TEXT,
            "score": NUMBER | {"description": "A margin without bounds, not a probability."},
            "probability": {"type": ["number", "null"], "description": "0 to 1, where the bundle is calibrated."},
            "seen": YES | {"description": "Whether training photos carried the label."},
            "box": BOX,
            "parents": {
                "type": "array",
                "items": TEXT,
                "description": "What the label is a kind of, the outermost first.",
            },
            "map": {
                "type": "array",
                "items": {"type": "array", "items": NUMBER},
                "description": "Evidence over the grid of regions, rows from the top; 1 is the photo's greatest.",
            },
        }
    ),
    "Found": _record({"words": TEXT, "composed": COMPOSED, "photos": _many("Hit")}),
    "Hit": _record(
        {
            "id": TEXT,
            "name": TEXT | {"description": "Below the index's folder."},
            "score": NUMBER,
            "box": BOX,
            "size": SIZE,
        }
    ),
}
