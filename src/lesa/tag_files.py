"""Tags as files: JSON Lines and CSV, written photo by photo; JSON Lines are also read."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lesa.errors import LesaError
from lesa.files import numbered_lines

if TYPE_CHECKING:
    from lesa.codes import Codes
    from lesa.tagger import Tag

COLUMNS = ("photo", "label", "score", "seen", "left", "top", "right", "bottom")
"""Columns of the CSV format, one row per tag; boxes in pixels of the upright photo. Calibration adds `probability`."""
START = b'{"photo": '
"""The start of every line of a JSON Lines file."""
Write = Callable[[str, "Codes", "Sequence[Tag]"], None]
"""Writes one photo: takes its path, its codes and its tags."""
TagPath = tuple[str, ...]
"""A tag below its parents, the most general one first: `("animal", "dog")`."""


def resume(out: Path, settings: str) -> set[str]:
    """Return the photos of a JSON Lines file, so that tagging can continue; an incomplete last line is removed.

    Args:
        out: the file; its folder is made if it does not exist.
        settings: the fingerprint of bundle, labels and options, which every line holds.

    Raises:
        LesaError: the file was not written by `lesa tag`, or its tags were made with other settings.
    """
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return set()
    done = set()
    with out.open("r+b") as file:
        complete = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") and line[: len(START)] == START[: len(line)]:
                file.truncate(complete)
                break
            complete += len(line)
            done.add(_photo_of(line, settings, f"{out}:{number}"))
    return done


def _photo_of(line: bytes, settings: str, where: str) -> str:
    try:
        entry = json.loads(line)
        photo, given = str(entry["photo"]), entry["settings"]
    except (ValueError, KeyError, TypeError):
        raise LesaError(f"{where} is not a line that `lesa tag` wrote: give another file") from None
    if given != settings:
        raise LesaError(f"{where} was tagged with another bundle, labels, --top or --threshold: give another file")
    return photo


def lines_writer(file: IO[str], settings: str) -> Write:
    """Return a writer of JSON Lines: one object per photo, flushed after each line."""

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        entry = {"photo": photo, "size": codes.size, "tags": [tag.to_dict() for tag in tags], "settings": settings}
        file.write(json.dumps(entry) + "\n")
        file.flush()

    return write


def csv_writer(file: IO[str], calibrated: bool = False) -> Write:
    """Return a writer of CSV: one row per tag."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([*COLUMNS, *(["probability"] if calibrated else [])])

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        for tag in tags:
            probability = [] if tag.probability is None else [f"{tag.probability:.4f}"]
            rows.writerow([photo, tag.label, f"{tag.score:.4f}", int(tag.seen), *tag.box, *probability])
        file.flush()

    return write


def read_tags(path: Path, photos: Path) -> dict[Path, list[TagPath]]:
    """Read the tags of photos, as `lesa tag` prints them: one JSON object per line, with `photo` and `tags`.

    Args:
        path: the JSON Lines file. If a photo has two lines, the last line wins.
        photos: the folder that the photos' paths start from.

    Raises:
        LesaError: a line is not such an object; the message names the line.
    """
    tagged = {}
    for place, line in numbered_lines(path):
        try:
            row = json.loads(line)
            tagged[_photo_path(photos, row["photo"])] = [tag_path(tag) for tag in row["tags"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            expected = '{"photo": "a.jpg", "tags": [{"label": "dog"}]}'
            raise LesaError(f"{place} is not a photo with tags: expected {expected}, as `lesa tag` prints it") from None
        except LesaError as error:
            raise LesaError(f"{place}: {error}") from None
    return tagged


def tag_path(tag: Mapping[str, Any]) -> TagPath:
    """Return a tag with its parents, each as text that can be a keyword.

    Raises:
        TypeError, KeyError: the tag is not an object with a label and, if any, a list of parents.
        LesaError: a name is empty, or has a character that a sidecar cannot hold.
    """
    # Here, because it loads the libraries of XML, which `lesa tag` does not need.
    from lesa.xmp import clean

    parents = tag.get("parents", [])
    if not isinstance(parents, list):
        raise TypeError
    names = [*parents, tag["label"]]
    levels = tuple(clean(_expect_text(name)) for name in names)
    if not all(levels):
        raise LesaError(f"a label or parent is empty in {names}: leave it out")
    return levels


def _photo_path(photos: Path, name: Any) -> Path:
    path = Path(_expect_text(name))
    if not path.name:
        raise TypeError
    return photos / path


def _expect_text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError
    return text
