"""The tagger: a photo becomes codes once (`lesa.codes`); codes and words become tags, again for each list of words.

No PyTorch is needed: the network that makes the codes is an ONNX graph in the bundle.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from PIL import Image

from lesa.bundle import Bundle, open_bundle
from lesa.calibration import photo_offset
from lesa.codes import Box, Codes, Floats, Scored, evidence, peak_box, score, shifted
from lesa.errors import LesaError
from lesa.graph import RunGraph, open_graph
from lesa.images import crop_box, decode_ahead, open_photo, to_pixels
from lesa.lexicon import Lexicon

TOP = 5
"""Tags per photo if neither a number nor a threshold is given."""
KEPT = 256
"""Number of photos whose codes a tagger keeps: 75 kB each with ten codes and 49 regions of 300 numbers."""
KEPT_LABELS = 16
"""Number of lists of labels whose vectors a tagger keeps."""
SAME = 0.999
"""If two vectors of a label have at least this cosine, they come from the same source."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """A decoded photo."""

    pixels: Floats
    """The input of the graph: 3, H, W."""
    size: tuple[int, int]
    """The upright photo's width and height."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels to choose from, with their vectors and all else that scoring needs."""

    names: tuple[str, ...]
    """The labels as they were asked for (C names)."""
    points_CE: Floats
    """Their points among the codes: their unit vectors, unless the bundle has a label map."""
    seen: tuple[bool, ...]
    """Whether training photos carried them."""
    biases_C: NDArray[np.float64] | None = None
    """The biases that the bundle's calibration adds for them, if it has one."""
    composed: tuple[str, ...] = ()
    """Labels that got the mean of their words' vectors: a rough replacement for the vector of the bundle's source."""


@dataclass(frozen=True, eq=False)
class Tag:
    """A label of a photo and where it comes from."""

    label: str
    """The label."""
    score: float
    """An unbounded margin, not a probability; it does not depend on which other labels were asked for."""
    seen: bool
    """Whether training photos carried the label."""
    evidence: Floats
    """What each place of the grid (rows, columns) alone says for the label, in units of the score; may be negative."""
    box: Box
    """The place in the photo with the most evidence."""
    probability: float | None = None
    """The probability that the label is present, if the bundle is calibrated (see `lesa.calibration`)."""
    parents: tuple[str, ...] = ()
    """The more general names above it in the bundle, the outermost first."""

    @property
    def text(self) -> str:
        """The number beside the label: the probability if there is one, else the score."""
        return f"{self.score:.2f}" if self.probability is None else f"{100 * self.probability:.0f} %"

    def to_dict(self, with_evidence: bool = False) -> dict[str, Any]:
        """Return the tag as JSON holds it: with `probability` if the bundle is calibrated, `parents` if there are some.

        Args:
            with_evidence: whether `evidence` is there, too: rows of the grid, from the top.
        """
        entry = {"label": self.label, "score": round(self.score, 4), "seen": self.seen, "box": self.box}
        entry |= {} if self.probability is None else {"probability": round(self.probability, 4)}
        entry |= {"parents": self.parents} if self.parents else {}
        rows = [[round(value, 4) for value in row] for row in self.evidence.tolist()] if with_evidence else None
        return entry if rows is None else entry | {"evidence": rows}


class Tagger:
    """Tags photos with a bundle.

    Example:
        tagger = Tagger("mine.lesa")
        tags = tagger.tag("photo.jpg")
        others = tagger.tag("photo.jpg", labels=["sunrise", "red car"])  # does not read the photo again
    """

    def __init__(self, bundle: Bundle | Path | str, vectors: Sequence[str] = ()) -> None:
        """Open the bundle; the graph is loaded with the first photo.

        Args:
            bundle: its path, `default` for the one in the package, or an opened bundle.
            vectors: the bundle's sources of word vectors, if they are now in another place; in the same order (see
                `lesa.vectors`). They are read for words that the bundle does not carry.

        Raises:
            LesaError: the bundle cannot be opened, or was made with another number of sources.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self._space = self.bundle.space
        self._reads_sources = bool(vectors)
        if vectors:
            if len(vectors) != len(self._space.sources):
                given, expected = len(vectors), ", ".join(self._space.sources)
                made = f"{self.bundle.path} was made with {expected}"
                raise LesaError(f"{given} sources of vectors were given, {made}: name each")
            self._space = replace(self._space, sources=tuple(vectors))
        manifest = self.bundle.manifest
        self._lexicon = Lexicon(self.bundle)
        self._seen = frozenset(manifest.seen)
        self._run: RunGraph | None = None
        self._codes: LRUCache[tuple[str, int, int], Codes] = LRUCache(KEPT)
        self._labels: LRUCache[tuple[str, ...], Labels] = LRUCache(KEPT_LABELS)

    def tag(
        self,
        photo: Path | str,
        labels: Sequence[str] | None = None,
        top: int | None = TOP,
        threshold: float | None = None,
    ) -> list[Tag]:
        """Return a photo's best labels, the best first.

        Args:
            photo: an image file.
            labels: any words; the bundle's own labels if not given.
            top: number of tags, at most; all if None.
            threshold: the least probability; if the bundle is not calibrated, the least score.

        Raises:
            LesaError: the photo cannot be read, or a label has no vector.
        """
        chosen = self.labels(labels)
        return self.rank(self.codes(photo), chosen, top, threshold)

    def codes(self, photo: Path | str) -> Codes:
        """Return a photo's codes; a photo that has not changed is not read again.

        Raises:
            LesaError: the photo cannot be read.
        """
        key = _state(Path(photo))
        if key not in self._codes:
            ((_, codes),) = self.stream([photo])
            if isinstance(codes, LesaError):
                raise codes
            self._codes[key] = codes
        return self._codes[key]

    def stream(
        self, photos: Iterable[Path | str], batch_size: int = 8
    ) -> Iterator[tuple[Path | str, Codes | LesaError]]:
        """Yield (photo, codes) of any number of photos, in order; a photo that cannot be read yields the reason.

        Photos are decoded in threads, a few batches ahead; their codes are not kept.
        """
        decoded = decode_ahead(photos, self._decode, ahead=4 * batch_size)
        while batch := list(itertools.islice(decoded, batch_size)):
            good = [pixels for _, pixels in batch if not isinstance(pixels, LesaError)]
            encoded = iter(self._encode(good))
            for photo, pixels in batch:
                yield photo, pixels if isinstance(pixels, LesaError) else next(encoded)

    def encode(self, image: Image.Image) -> Codes:
        """Return the codes of a photo that is open already (see `lesa.images.open_photo`); they are not kept.

        Raises:
            LesaError: the photo is too narrow, or the graph cannot be opened.
        """
        (codes,) = self._encode([self._pixels(image)])
        return codes

    def labels(self, names: Sequence[str] | None = None) -> Labels:
        """Return labels with their vectors, for `rank`; the bundle's own if no names are given.

        If the bundle does not carry a vector, it is read from the bundle's sources, once.

        Raises:
            LesaError: no label was given, or one has no vector.
        """
        if isinstance(names, str):
            raise LesaError(f"labels is the text {names!r}: give a list of labels")
        key = self.bundle.manifest.tags if names is None else tuple(dict.fromkeys(names))
        if not key:
            raise LesaError("no label was given: name at least one")
        labels = self._labels.get(key)
        if labels is None:
            labels = self._labels[key] = self._find(key)
        return labels

    def rank(self, codes: Codes, labels: Labels, top: int | None = TOP, threshold: float | None = None) -> list[Tag]:
        """Return the best of the labels for a photo's codes, the best first; `top` and `threshold` as for `tag`.

        The best are the most probable; with a bundle that is not calibrated, those of the highest scores.

        Raises:
            LesaError: the threshold is not a probability, but the bundle is calibrated.
        """
        self.check_threshold(threshold)
        scored = self.score(codes, labels)
        probability_C = self._probabilities(scored.scores_C, codes, labels)
        value_C = scored.scores_C if probability_C is None else probability_C
        order = np.argsort(-value_C, kind="stable")[:top]
        chosen_C = np.array([c for c in order.tolist() if threshold is None or value_C[c] >= threshold], np.intp)
        maps_CR = evidence(codes, labels.points_CE[chosen_C], scored.winner_C[chosen_C])
        return [
            self._tag(
                labels.names[c],
                float(scored.scores_C[c]),
                labels.seen[c],
                codes,
                map_R,
                None if probability_C is None else float(probability_C[c]),
            )
            for c, map_R in zip(chosen_C.tolist(), maps_CR, strict=True)
        ]

    def limits(
        self, labels: Labels, top: int | None = None, threshold: float | None = None
    ) -> tuple[int | None, float | None]:
        """Return `top` and `threshold` for `rank`, or their defaults if neither is given.

        If the bundle is calibrated and the labels are its own, the default is its threshold, which was found for these
        labels. Otherwise there are five tags per photo.
        """
        if top is None and threshold is None:
            calibration = self.bundle.calibration
            own = labels.names == self.bundle.manifest.tags
            return (None, calibration.threshold) if calibration and own else (TOP, None)
        return top, threshold

    def check_threshold(self, threshold: float | None) -> None:
        """Refuse a threshold that is not a probability, if the bundle is calibrated."""
        if self.bundle.calibration and threshold is not None and not 0 <= threshold <= 1:
            raise LesaError(
                f"the threshold is {threshold:g}: {self.bundle.path} is calibrated, so give a probability from 0 to 1"
            )

    def score(self, codes: Codes, labels: Labels) -> Scored:
        """Return the labels' scores for a photo's codes, and the code that each label picked."""
        return score(codes, labels.points_CE, self.bundle.manifest.selection)

    def evidence(self, codes: Codes, labels: Labels) -> Floats:
        """Return what each region alone says for each label, `C, R`, in units of the score."""
        return evidence(codes, labels.points_CE, self.score(codes, labels).winner_C)

    def full_colour(self, codes: Codes, labels: Labels) -> float:
        """Return the evidence that gets the full colour in pictures of a photo, in units of the score; at least 0.

        It is the most evidence that any of the bundle's own labels or of `labels` has in any region, so a word that the
        photo does not show stays pale.
        """
        own = self.labels()
        scales = (own,) if labels is own else (own, labels)
        return max(0.0, *(float(self.evidence(codes, each).max()) for each in scales))

    def photo_offset(self, codes: Codes) -> float:
        """Return log(mean(exp(score))) over the bundle's own labels, which says how high scores are on this photo."""
        return photo_offset(self.score(codes, self.labels()).scores_C)

    def _probabilities(self, scores_C: Floats, codes: Codes, labels: Labels) -> NDArray[np.float64] | None:
        if self.bundle.calibration is None or labels.biases_C is None:
            return None
        offset = photo_offset(scores_C) if labels is self.labels() else self.photo_offset(codes)
        return self.bundle.calibration.probabilities(scores_C, offset, labels.biases_C)

    def _tag(self, label: str, score: float, seen: bool, codes: Codes, map_R: Floats, probability: float | None) -> Tag:
        manifest = self.bundle.manifest
        map_HW = shifted(map_R.reshape(manifest.grid), manifest.region_shift)
        box = peak_box(map_HW.clip(min=0), crop_box(codes.size, manifest.preprocessing))
        parents = manifest.parents.get(self.canonical(label), ())
        return Tag(label, score, seen, map_HW, box, probability, parents)

    def canonical(self, name: str) -> str:
        """Return a name as the bundle writes it; a name that the bundle does not carry stays as it is."""
        row = self._lexicon.row(name)
        return name if row is None else self._lexicon.names[row]

    def _find(self, names: tuple[str, ...]) -> Labels:
        rows = {name: row for name in names if (row := self._lexicon.row(name)) is not None}
        vectors = {name: self.bundle.vectors_CE[row] for name, row in rows.items()}
        others = [name for name in names if name not in vectors]
        composing = self.bundle.manifest.composed and not self._reads_sources
        if others:
            vectors_CE = self._lexicon.compose(others) if composing else self._embed(others)
            vectors |= dict(zip(others, vectors_CE, strict=True))
        canonical = [self.canonical(name) for name in names]
        seen = tuple(name in self._seen for name in canonical)
        calibration = self.bundle.calibration
        biases_C = calibration.biases(canonical, seen) if calibration else None
        composed = tuple(others) if composing else ()
        points_CE = self.bundle.points(np.stack([vectors[name] for name in names]))
        return Labels(names, points_CE, seen, biases_C, composed)

    def _embed(self, names: list[str]) -> Floats:
        """Return vectors of words that the bundle does not carry.

        One of its own labels is embedded with them, as a check: other vectors of the same length would give meaningless
        tags.
        """
        manifest, sources = self.bundle.manifest, ", ".join(self._space.sources)
        try:
            vectors_CE = self._space.embed([manifest.names[0], *names])
        except LesaError as error:
            few = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise LesaError(f"for labels that {self.bundle.path} does not carry ({few}): {error}") from None
        if vectors_CE.shape[1] != manifest.vector_size or not vectors_CE[0] @ self.bundle.vectors_CE[0] > SAME:
            raise LesaError(
                f"{sources} has another vector for {manifest.names[0]!r} than {self.bundle.path}: give the vectors "
                f"that it was made with ({', '.join(manifest.sources)})"
            )
        return vectors_CE[1:]

    def _decode(self, photo: Path | str) -> Pixels:
        return self._pixels(open_photo(photo))

    def _pixels(self, image: Image.Image) -> Pixels:
        return Pixels(to_pixels(image, self.bundle.manifest.preprocessing), image.size)

    def _encode(self, photos: Sequence[Pixels]) -> list[Codes]:
        if not photos:
            return []
        if self._run is None:
            self._run = open_graph(self.bundle)
        outputs = self._run(np.stack([photo.pixels for photo in photos]))
        return [Codes(*each) for each in zip(*outputs, (photo.size for photo in photos), strict=True)]


def _state(photo: Path) -> tuple[str, int, int]:
    """Return the state of a photo's file, which changes with the photo: absolute path, time of change and size."""
    try:
        stat = photo.stat()
    except OSError:
        raise LesaError(f"{photo} does not exist") from None
    return str(photo.absolute()), stat.st_mtime_ns, stat.st_size
