"""Nested settings, as TOML and JSON hold them -> a checked dataclass; a mistake is named with its key."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lesa.errors import LesaError, did_you_mean

T = TypeVar("T")


def parse_settings(kind: type[T], given: Mapping[str, Any], where: str, prefix: str = "") -> T:
    """Build a dataclass from nested settings; what is not given has its default.

    Args:
        kind: the dataclass.
        given: names of its fields and their values; the value of a dataclass field is a mapping again.
        where: the place of the settings, for messages.
        prefix: what comes before the keys in messages, such as `model.settings.`.

    Raises:
        LesaError: a key does not exist, is missing, or its value is of the wrong kind.
    """
    _refuse_unknown_keys(given, kind, where, prefix)
    try:
        return TypeAdapter(kind).validate_python(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + ".".join(str(part) for part in first["loc"])
        raise LesaError(f"{where}: {key}: {first['msg']} (given: {first['input']!r})") from None


def _refuse_unknown_keys(given: Mapping[str, Any], kind: type, where: str, prefix: str) -> None:
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key, value in given.items():
        if key not in known:
            hint = did_you_mean(key, known) if known else "there are no such settings"
            raise LesaError(f"{where}: there is no key {prefix + key!r}; {hint}")
        if is_dataclass(hints[key]) and isinstance(value, dict):
            _refuse_unknown_keys(value, hints[key], where, f"{prefix}{key}.")
