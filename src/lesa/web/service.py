"""What the server does, without HTTP: uploads -> codes that are kept, codes x labels -> tags, words -> photos.

One photo, one search or one list of labels is worked on at a time. What a client gets to hold is an id that says
nothing: a keyed hash whose key lives as long as the server.
"""

import hmac
import io
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, Generic, TypeVar

from PIL import Image

from lesa.codes import Codes
from lesa.errors import LesaError
from lesa.images import crop_box, open_photo
from lesa.index.search import Hit, Index
from lesa.tagger import Labels, Tag, Tagger
from lesa.vectors import ENCODER
from lesa.web.limits import Limits

Held = TypeVar("Held")
Json = dict[str, Any]

THUMBNAIL = 480
"""Pixels: the longer side of a thumbnail."""
AT_ONCE = 2
"""Thumbnails that are made at a time."""
GONE = "the server no longer holds this photo: send it again"


class Kept(Generic[Held]):
    """The last so many things by their ids; those that were not asked for longest go first."""

    def __init__(self, size: int) -> None:
        """Make an empty one."""
        self._size, self._held, self._lock = size, OrderedDict[str, Held](), Lock()

    def get(self, key: str) -> Held | None:
        """Return what is held under an id, if it is."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: str, value: Held) -> None:
        """Hold something."""
        with self._lock:
            self._held[key] = value
            self._held.move_to_end(key)
            if len(self._held) > self._size:
                self._held.popitem(last=False)


class Service:
    """Tags uploaded photos and searches an index. Its methods may be called from several threads."""

    def __init__(
        self,
        tagger: Tagger,
        index: Index | None = None,
        limits: Limits | None = None,
        vectors: Sequence[str] = (),
    ) -> None:
        """Load the bundle's graph.

        Args:
            tagger: of the bundle.
            index: what is searched, if anything.
            limits: of requests.
            vectors: the sources of vectors that the tagger was given.

        Raises:
            LesaError: the graph cannot be opened.
        """
        self.tagger, self.index, self.limits = tagger, index, limits or Limits()
        bundle = tagger.bundle
        paths = {str(bundle.path), *(source.removeprefix(ENCODER) for source in (*vectors, *bundle.manifest.sources))}
        # As they were given, and as messages write them. The longest first: one may be the start of another.
        self._paths = sorted(paths | {str(Path(path)) for path in paths}, key=len, reverse=True)
        self._codes = Kept[Codes](self.limits.kept)
        self._found = Kept[Path](self.limits.kept)
        self._key = secrets.token_bytes(32)
        self._lock, self._thumbnails = Lock(), BoundedSemaphore(AT_ONCE)
        side = bundle.manifest.preprocessing.size
        tagger.encode(Image.new("RGB", (side, side)))

    def about(self) -> Json:
        """Return what the page shows before any photo."""
        bundle = self.tagger.bundle
        indexed = None if self.index is None else {"photos": len(self.index), "name": self.index.folder.name}
        return {
            "bundle": bundle.path.name,
            "labels": list(bundle.manifest.tags),
            "calibrated": bundle.calibration is not None,
            "threshold": bundle.calibration.threshold if bundle.calibration else None,
            "index": indexed,
            "limits": self.limits.public(),
        }

    def without_paths(self, text: str) -> str:
        """Return a text for clients: where the bundle and its sources of vectors lie is nobody's business."""
        for path in self._paths:
            text = text.replace(path, Path(path).name or path)
        return text

    def labels(self, names: Sequence[str]) -> Labels:
        """Return labels to choose from; the bundle's own if there is no name.

        Raises:
            LesaError: they are too many or too long, or one has no vector.
        """
        if len(names) > self.limits.labels:
            raise LesaError(f"{len(names):,} labels were given, the limit is {self.limits.labels:,}: give fewer")
        for name in names:
            self._check(name)
        with self._lock:
            return self.tagger.labels(names or None)

    def upload(self, content: bytes, name: str) -> str:
        """Return the id of a photo; its codes are held under it. A photo that is held already is not read again.

        Raises:
            LesaError: it is too large, or no photo.
        """
        if len(content) > self.limits.photo:
            raise LesaError(f"{name} has more than the limit of {self.limits.photo >> 20} MiB: send a smaller copy")
        key = self._id(b"upload", content)
        if self._codes.get(key) is None:
            with self._lock:
                self._codes.put(key, self.tagger.encode(open_photo(io.BytesIO(content), name)))
        return key

    def tags(self, key: str, labels: Labels, top: int, threshold: float | None) -> Json | None:
        """Return a photo's size and tags, or None if it is no longer held."""
        codes = self._codes.get(key)
        if codes is None:
            return None
        view = crop_box(codes.size, self.tagger.bundle.manifest.preprocessing)
        with self._lock:
            found = self.tagger.rank(codes, labels, top, threshold)
        entry = {"id": key, "size": codes.size, "view": [round(side, 1) for side in view]}
        full = max((float(tag.evidence.max()) for tag in found), default=0)
        return entry | {"tags": [_tag_entry(tag, full) for tag in found]}

    def search(self, words: str, top: int) -> Json:
        """Return the photos of the index that answer the words best, and whether the words were put together.

        Raises:
            LesaError: there is no index, or no vector for the words.
        """
        if self.index is None:
            raise LesaError("there is no index to search: start the server with --index")
        self._check(words)
        with self._lock:
            composed = list(self.tagger.labels([words]).composed)
            found = [self._hit_entry(self.index, hit) for hit in self.index.find(words, top)]
        return {"words": words, "composed": composed, "photos": found}

    def thumbnail(self, key: str) -> bytes | None:
        """Return a small JPEG of a photo that a search found, or None if it found none of this id.

        Raises:
            LesaError: the photo can no longer be read.
        """
        path = self._found.get(key)
        if path is None:
            return None
        with self._thumbnails:
            image = open_photo(path, path.name)
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=85)
        return file.getvalue()

    def _hit_entry(self, index: Index, hit: Hit) -> Json:
        key, path = self._id(b"found", hit.photo.encode("utf-8", "surrogatepass")), Path(hit.photo)
        # An index that came from elsewhere shall not show what lies beside its folder.
        if not path.is_absolute() and ".." not in path.parts:
            self._found.put(key, index.folder / path)
        return {"id": key, "name": hit.photo, "score": round(hit.score, 4), "box": hit.box, "size": hit.size}

    def _id(self, kind: bytes, content: bytes) -> str:
        return hmac.new(self._key, kind + content, "sha256").hexdigest()[:32]

    def _check(self, text: str) -> None:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise LesaError(f"{text[:20]!r} is not text: send it as UTF-8")
        if len(text) > self.limits.letters:
            raise LesaError(f"{text[:20]!r}... has more than the limit of {self.limits.letters} letters: shorten it")


def _tag_entry(tag: Tag, full: float) -> Json:
    """Return a tag as JSON holds it; `full` is the greatest evidence that any tag of the photo has."""
    return {
        "label": tag.label,
        "score": round(tag.score, 4),
        "probability": tag.probability,
        "seen": tag.seen,
        "box": tag.box,
        "map": evidence(tag, full),
        "parents": list(tag.parents),
    }


def evidence(tag: Tag, full: float) -> list[list[float]]:
    """Return a tag's positive evidence over the grid, rows from the top, as a share of the photo's greatest."""
    return [[round(value / max(full, 1e-12), 3) for value in row] for row in tag.evidence.clip(min=0).tolist()]
