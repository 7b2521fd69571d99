"""The server's work without HTTP: uploads -> codes that are kept, codes x labels -> tags, words -> photos.

The server works on one photo, one search or one list of labels at a time. A client gets an id that tells nothing about
the photo: a keyed hash, whose key lives as long as the server.
"""

import hmac
import io
import secrets
from collections.abc import Sequence
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

from cachetools import LRUCache
from PIL import Image

from lesa.codes import Codes
from lesa.errors import LesaError
from lesa.images import crop_box, open_photo
from lesa.index.search import Hit, Index
from lesa.tagger import Labels, Tagger
from lesa.vectors import ENCODER
from lesa.web.limits import Limits

Json = dict[str, Any]

THUMBNAIL = 480
"""Pixels: the longer side of a thumbnail."""
AT_ONCE = 2
"""Number of thumbnails that are made at the same time."""
GONE = "the server no longer holds this photo: send it again"


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
            tagger: the tagger of the bundle.
            index: the index to search, if there is one.
            limits: the limits of requests.
            vectors: the sources of vectors that the tagger was given.

        Raises:
            LesaError: the graph cannot be opened.
        """
        self.tagger, self.index, self.limits = tagger, index, limits or Limits()
        bundle = tagger.bundle
        paths = {str(bundle.path), *(source.removeprefix(ENCODER) for source in (*vectors, *bundle.manifest.sources))}
        # As they were given, and as messages write them. The longest is first: one may be the start of another.
        self._paths = sorted(paths | {str(Path(path)) for path in paths}, key=len, reverse=True)
        self._codes: LRUCache[str, Codes] = LRUCache(self.limits.kept)
        self._found: LRUCache[str, Path] = LRUCache(self.limits.kept)
        self._key = secrets.token_bytes(32)
        # One thread works at a time; other threads can look into the caches meanwhile.
        self._working, self._looking, self._thumbnails = Lock(), Lock(), BoundedSemaphore(AT_ONCE)
        side = bundle.manifest.preprocessing.size
        tagger.encode(Image.new("RGB", (side, side)))

    def about(self) -> Json:
        """Return the facts that the page shows before any photo (`lesa.web.models.AboutAnswer`)."""
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
        """Return a text for clients, with file names in place of the paths of the bundle and its sources of vectors."""
        for path in self._paths:
            text = text.replace(path, Path(path).name or path)
        return text

    def labels(self, names: Sequence[str]) -> Labels:
        """Return labels to choose from; the bundle's own if no name is given.

        Raises:
            LesaError: there are too many labels, one is too long, or one has no vector.
        """
        if len(names) > self.limits.labels:
            raise LesaError(f"{len(names):,} labels were given, the limit is {self.limits.labels:,}: give fewer")
        for name in names:
            self._check(name)
        with self._working:
            return self.tagger.labels(names or None)

    def upload(self, content: bytes, name: str) -> str:
        """Return the id of a photo, under which its codes are kept. If they are kept already, the photo is not read.

        Raises:
            LesaError: it is too large, or not a photo.
        """
        if len(content) > self.limits.photo:
            raise LesaError(f"{name} has more than the limit of {self.limits.photo >> 20} MiB: send a smaller copy")
        key = self._id(b"upload", content)
        if self._codes_of(key) is None:
            with self._working:
                codes = self.tagger.encode(open_photo(io.BytesIO(content), name))
            with self._looking:
                self._codes[key] = codes
        return key

    def tags(self, key: str, labels: Labels, top: int, threshold: float | None) -> Json | None:
        """Return a photo's tags as `lesa.web.models.PhotoEntry` describes them; None if its codes are not kept.

        Raises:
            LesaError: the threshold is not a probability, but the bundle is calibrated.
        """
        codes = self._codes_of(key)
        if codes is None:
            return None
        crop = crop_box(codes.size, self.tagger.bundle.manifest.preprocessing)
        with self._working:
            tags = self.tagger.rank(codes, labels, top, threshold)
            full = self.tagger.full_colour(codes, labels)
        return {
            "id": key,
            "size": codes.size,
            "crop": [round(side, 2) for side in crop],
            "full_colour": round(full, 4),
            "tags": [tag.to_dict(with_evidence=True) for tag in tags],
        }

    def search(self, words: str, top: int) -> Json:
        """Return the photos of the index that answer the words best (`lesa.web.models.SearchAnswer`).

        Raises:
            LesaError: there is no index, or there is no vector for the words.
        """
        if self.index is None:
            raise LesaError("there is no index to search: start the server with --index")
        self._check(words)
        with self._working:
            composed = list(self.tagger.labels([words]).composed)
            hits = self.index.find(words, top)
        return {"words": words, "composed": composed, "photos": [self._hit_entry(self.index, hit) for hit in hits]}

    def thumbnail(self, key: str) -> bytes | None:
        """Return a small JPEG of a photo that a search found; None if no recent search found a photo of this id.

        Raises:
            LesaError: the photo can no longer be read.
        """
        with self._looking:
            path = self._found.get(key)
        if path is None:
            return None
        with self._thumbnails:
            image = open_photo(path, path.name)
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=85)
        return file.getvalue()

    def _codes_of(self, key: str) -> Codes | None:
        with self._looking:
            return self._codes.get(key)

    def _hit_entry(self, index: Index, hit: Hit) -> Json:
        key, path = self._id(b"found", hit.photo.encode("utf-8", "surrogatepass")), Path(hit.photo)
        # An index that came from elsewhere must not show files outside its folder.
        if not path.is_absolute() and ".." not in path.parts:
            with self._looking:
                self._found[key] = index.folder / path
        return {"id": key, "name": hit.photo, "score": round(hit.score, 4), "box": hit.box, "size": hit.size}

    def _id(self, kind: bytes, content: bytes) -> str:
        return hmac.new(self._key, kind + content, "sha256").hexdigest()[:32]

    def _check(self, text: str) -> None:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise LesaError(f"{text[:20]!r} is not text: send it as UTF-8")
        if len(text) > self.limits.letters:
            raise LesaError(f"{text[:20]!r}... has more than the limit of {self.limits.letters} letters: shorten it")
