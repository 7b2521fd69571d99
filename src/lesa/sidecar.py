"""XMP sidecars: tags are added as keywords beside the owner's, and removed again; the photo itself is never opened.

An existing sidecar is not rewritten. Its parts are located in its bytes; then bytes of keywords are inserted or
removed. Comments, other programs' settings, quotes and spaces stay unchanged. The sidecar itself notes the added
keywords, in a namespace of our own. So they can be replaced or removed later, also on another machine. Keywords of the
owner are never removed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesa.errors import LesaError
from lesa.files import replacing
from lesa.tag_files import TagPath
from lesa.xmp import (
    EMPTY,
    HIERARCHICAL,
    PROPERTIES,
    SUBJECT,
    TAGS_LIST,
    Keywords,
    Packet,
    Property,
    clean,
    unique,
    with_keywords,
)


def keywords_of(tags: Sequence[TagPath], root: str = "AI") -> dict[Property, list[str]]:
    """Return the keywords of tags, in the form of each property.

    Args:
        tags: each with its parents, the most general one first.
        root: the keyword above all of them; `Auto|AI` for two levels, empty for no level.

    Returns:
        For `dc:subject` the last level alone; for Lightroom all levels joined by `|`, for digiKam joined by `/`.

    Example:
        >>> [list(words) for words in keywords_of([("animal", "dog")]).values()]
        [['dog'], ['AI|animal|dog'], ['AI/animal/dog']]
    """
    root_levels = tuple(level for part in root.split("|") if (level := clean(part)))
    levels = [(*root_levels, *tag) for tag in tags]
    return {
        SUBJECT: unique([tag[-1] for tag in levels]),
        HIERARCHICAL: unique(["|".join(tag) for tag in levels]),
        TAGS_LIST: unique(["/".join(tag) for tag in levels]),
    }


def sidecar_of(photo: Path, naming: str = "full") -> Path:
    """Return the path of a photo's sidecar: `a.jpg.xmp`, or `a.xmp` with the naming `adobe`."""
    return photo.with_suffix(".xmp") if naming == "adobe" else photo.with_name(f"{photo.name}.xmp")


@dataclass(frozen=True)
class Change:
    """A planned change of one sidecar."""

    sidecar: Path
    before: bytes | None
    """Its bytes; None if the file does not exist."""
    after: bytes | None
    """Its new bytes; None if the file is to be deleted."""

    @property
    def kind(self) -> str:
        """`unchanged`, `new`, `deleted` or `changed`."""
        if self.before == self.after:
            return "unchanged"
        return "new" if self.before is None else "deleted" if self.after is None else "changed"

    def differences(self) -> list[str]:
        """Return one line per removed or added keyword: `- dc:subject: cat`, `+ dc:subject: dog`."""
        old, new = Packet(self.before or EMPTY), Packet(self.after or EMPTY)
        lines = []
        for each in PROPERTIES:
            before, after = Counter(old.words(each)), Counter(new.words(each))
            lines += [f"- {each}: {word}" for word in (before - after).elements()]
            lines += [f"+ {each}: {word}" for word in (after - before).elements()]
        return lines

    def carry_out(self) -> None:
        """Write or delete the file, completely or not at all; its permissions stay."""
        if self.kind == "unchanged":
            return
        if self.after is None:
            self.sidecar.unlink()
            return
        path = self.sidecar.resolve()
        mode = path.stat().st_mode if self.before is not None else None
        with replacing(path) as temporary:
            temporary.write_bytes(self.after)
        if mode is not None:
            path.chmod(mode)


def _plan(sidecar: Path, wanted: Keywords) -> Change:
    """Return the change that brings `wanted` into a sidecar.

    Raises:
        LesaError: the file is not a sidecar that can be changed safely.
    """
    before = sidecar.read_bytes() if sidecar.exists() else None
    try:
        return Change(sidecar, before, with_keywords(before, wanted))
    except LesaError as error:
        raise LesaError(f"{sidecar} is left as it is: {error}") from None


def write_tags(
    tagged: Mapping[Path, Sequence[TagPath]],
    root: str = "AI",
    naming: str = "full",
    undo: bool = False,
    dry_run: bool = False,
) -> Iterator[Change | LesaError]:
    """Write the tags of photos into their sidecars, one after the other.

    Args:
        tagged: photo -> its tags. If a photo has no tags, earlier written ones are removed.
        root: the keyword above all tags.
        naming: `full` (`a.jpg.xmp`) or `adobe` (`a.xmp`).
        undo: remove the keywords that were written before and add none.
        dry_run: change no file.

    Yields:
        One change per photo, or the reason why its sidecar was left as it is; the work continues after it.
    """
    owners: dict[Path, Path] = {}
    for photo, tags in tagged.items():
        sidecar = sidecar_of(photo, naming)
        try:
            _check_photo(photo, sidecar, owners.setdefault(sidecar, photo), undo)
            change = _plan(sidecar, {} if undo else keywords_of(tags, root))
            if not dry_run:
                change.carry_out()
            yield change
        except LesaError as error:
            yield error
        except OSError as error:
            yield LesaError(f"{sidecar} is left as it is: {error.strerror}")


def _check_photo(photo: Path, sidecar: Path, first: Path, undo: bool) -> None:
    """Refuse a photo that does not exist, is a sidecar itself, or shares its sidecar with another photo."""
    if sidecar == photo:
        raise LesaError(f"{photo} is a sidecar itself, expected a photo: leave it out")
    if first != photo:
        raise LesaError(f"{photo} has the same sidecar as {first}, {sidecar}: use --naming full, or leave one out")
    if not undo and not photo.is_file():
        raise LesaError(f"{photo} does not exist: say with --photos which folder the photos' paths start from")
