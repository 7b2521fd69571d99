"""The deployable model, one zip or folder. It is opened only if its version, hashes, names and shapes agree.

manifest.json         format, preprocessing, sizes, how to score, the labels, the hash of every other member
graph.onnx            photos `B, 3, H, W` -> `codes` (B, M, P), `attention` (B, M, R), `regions` (B, R, P), any B
labels.safetensors    the labels' vectors (C, E), in 32 bits, or in 8 bits with one scale per label; means for centring
MODEL_CARD.md         data, licence, metrics with their rules, limits
calibration.json      optional: how scores become probabilities, and how the calibration was fitted
label-map.safetensors optional: the map from label vectors to points among the codes (`lesa.label_map`)

The zip is not compressed, so no member is larger than the file. A folder with the same members can be opened as well.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lesa.calibration import Calibration
from lesa.codes import SELECTIONS, Selection
from lesa.errors import LesaError
from lesa.files import replacing
from lesa.images import RESAMPLE, Preprocessing
from lesa.label_map import LabelMap
from lesa.vectors import VectorSpace, unit

FORMAT = "lesa-bundle-5"
MANIFEST, GRAPH, LABELS, CARD = "manifest.json", "graph.onnx", "labels.safetensors", "MODEL_CARD.md"
CALIBRATION, LABEL_MAP = "calibration.json", "label-map.safetensors"
DEFAULT = "default"
"""The name of the bundle that comes with the package."""
EMBEDDED = Path(__file__).with_name("default.lesa")
"""The path of that bundle (made by `tools/default_bundle.py`)."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A member's name: never a path."""
LARGEST = 4096
"""The greatest side in pixels that a manifest may ask for; networks use 200 to 1,000."""
Read = Callable[[str], bytes]
"""A member's name -> its content."""


@dataclass(frozen=True)
class Manifest:
    """The description of a bundle: preprocessing, sizes, labels, sources of vectors.

    Raises:
        LesaError: a value is outside its limits, no label was given, or a label appears twice.
    """

    preprocessing: Preprocessing
    """How a photo becomes pixels."""
    grid: tuple[int, int]
    """Rows and columns of the regions: R = rows x columns."""
    attentions: int
    """M, the number of codes of a photo."""
    vector_size: int
    """E, the length of a label vector."""
    code_size: int
    """P, the length of a code: E, unless the bundle has a label map."""
    selection: Selection
    """How the M dot products of a label become its score."""
    unseen: tuple[str, ...]
    """Labels of the vocabulary that no training photo had."""
    seen: tuple[str, ...]
    """Labels of the training photos."""
    words: tuple[str, ...]
    """Other words with vectors in the bundle; they become tags only on request."""
    sources: tuple[str, ...]
    """The sources of the vectors of all other words (see `lesa.vectors`)."""
    region_shift: float = 0.0
    """How far, in grid cells, a region's content is shifted down and right."""
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The kinds above a label, the most general one first: `dog` -> (`animal`,)."""
    composed: bool = False
    """Whether a phrase without a vector of its own may get the mean of its words' vectors."""

    def __post_init__(self) -> None:
        """Refuse values that the tagger could not work with."""
        if self.selection not in SELECTIONS:
            raise LesaError(f"selection is {self.selection!r}, expected one of {', '.join(SELECTIONS)}")
        if not 0 <= self.region_shift < 1:
            raise LesaError(f"region_shift is {self.region_shift}, expected at least 0 and less than 1")
        if min(*self.grid, self.attentions, self.vector_size, self.code_size) < 1:
            raise LesaError("grid, attentions, vector_size and code_size must be at least 1")
        if len(set(self.names)) != len(self.names) or not self.tags:
            raise LesaError("no label was given, or one appears twice: give each label once")

    @property
    def tags(self) -> tuple[str, ...]:
        """The labels of a photo's tags, unless other labels are given."""
        return self.unseen + self.seen

    @property
    def names(self) -> tuple[str, ...]:
        """All names with vectors in the bundle, in the order of the vectors (C names)."""
        return self.tags + self.words

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Manifest":
        """Make a manifest from the fields of the JSON file."""
        rows, columns = fields["grid"]
        return cls(
            preprocessing=_preprocessing(fields["preprocessing"]),
            grid=(int(rows), int(columns)),
            attentions=int(fields["attentions"]),
            vector_size=int(fields["vector_size"]),
            code_size=int(fields["code_size"]),
            selection=fields["selection"],
            region_shift=float(fields["region_shift"]),
            parents={str(label): _texts(above) for label, above in fields["parents"].items()},
            composed=fields["composed"] is True,
            **{key: _texts(fields[key]) for key in ("unseen", "seen", "words", "sources")},
        )


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Its graph has not run yet."""

    path: Path
    manifest: Manifest
    vectors_CE: NDArray[np.float32]
    """Unit vectors of `manifest.names`."""
    space: VectorSpace
    """How any other word becomes a vector."""
    graph: bytes
    """The ONNX graph."""
    card: str
    """The model card (Markdown)."""
    fingerprint: str
    """SHA-256 of everything that decides codes and scores; calibration, model card and parents do not change it."""
    calibration: Calibration | None = None
    """How scores become probabilities, if the bundle was calibrated."""
    label_map: LabelMap | None = None
    """How label vectors become points among the codes; None if they are their own points."""

    def points(self, vectors_CE: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the points of labels among the codes, `C, P`, from their unit vectors."""
        return vectors_CE if self.label_map is None else self.label_map.points(vectors_CE)

    @property
    def name(self) -> str:
        """The name that opens it again from any folder: `default`, or its absolute path."""
        return DEFAULT if self.path == EMBEDDED else str(self.path.absolute())


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle; `default` is the one that comes with the package.

    Raises:
        LesaError: it is missing, is not a bundle, has another version, was changed, is incomplete, or its parts do
            not fit together.
    """
    path = _place(path)
    return _assemble(path, _read_whole(path))


def _place(path: Path | str) -> Path:
    return EMBEDDED if str(path) == DEFAULT else Path(path)


def with_calibration(path: Path | str, calibration: Calibration, out: Path | str) -> None:
    """Write a copy of a bundle, as one zip, with this calibration in place of its own.

    An index of photos that was made with one of the two bundles works with the other: codes and scores are the same.

    Raises:
        LesaError: the bundle cannot be opened, or `out` is a folder.
    """
    path, out = _place(path), Path(out)
    if out.is_dir():
        raise LesaError(f"{out} is a folder: a calibrated bundle is written as one file, give another name")
    content = _read_whole(path)
    manifest = _assemble(path, content).manifest
    write_bundle(out, manifest, {**content.members, CALIBRATION: _json(calibration.to_dict())})


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


class _Content(NamedTuple):
    """The content of a bundle's file or folder; every member agrees with its hash."""

    fields: dict[str, Any]
    """The manifest as it is in JSON."""
    manifest: Manifest
    members: dict[str, bytes]


def _read_whole(path: Path) -> _Content:
    if not path.exists():
        raise LesaError(f"bundle {path} does not exist: make one with `lesa export`")
    if path.is_dir():
        return _checked(path, _folder_reader(path))
    try:
        with zipfile.ZipFile(path) as archive:
            return _checked(path, _zip_reader(path, archive))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        # zipfile raises these on files that are not a zip, or that are damaged.
        raise LesaError(f"{path} is not a bundle, or damaged ({error}): export it or copy it again") from None


def write_bundle(path: Path | str, manifest: Manifest, members: Mapping[str, bytes]) -> None:
    """Write a bundle as one zip, completely or not at all; the same content gives the same bytes."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(members.items())}
    contents = {MANIFEST: _json({"format": FORMAT, **asdict(manifest), "members": hashes}), **members}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in contents.items():
            # By default ZipInfo means: not compressed, and dated 1980.
            archive.writestr(zipfile.ZipInfo(name), content)


def pack_labels(
    vectors_CE: NDArray[np.float32], means: Sequence[NDArray[np.float32]] | None, bits: Literal[8, 32] = 32
) -> bytes:
    """Return the member `labels.safetensors`; with 8 bits each row is whole numbers times the row's scale."""
    further = {f"mean.{i}": mean for i, mean in enumerate(means or [])}
    if bits == 32:
        return save({"vectors": vectors_CE, **further})
    largest_C = np.abs(vectors_CE).max(axis=1)
    scale_C = np.where(largest_C > 0, largest_C / 127, 1).astype(np.float32)
    return save({"vectors": np.rint(vectors_CE / scale_C[:, None]).astype(np.int8), "scale": scale_C, **further})


def _checked(path: Path, read: Read) -> _Content:
    fields, manifest, hashes = _parse(path, read(MANIFEST))
    members = {name: read(name) for name in hashes}
    for name, content in members.items():
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise LesaError(f"{path}: {name} is not what the manifest says (SHA-256): export or copy the bundle again")
    return _Content(fields, manifest, members)


def _assemble(path: Path, content: _Content) -> Bundle:
    fields, manifest, members = content
    vectors_CE, means = read_labels(path, manifest, members[LABELS])
    return Bundle(
        path=path,
        manifest=manifest,
        vectors_CE=vectors_CE,
        space=VectorSpace(manifest.sources, means),
        graph=members[GRAPH],
        card=members[CARD].decode("utf-8", "replace"),
        fingerprint=hashlib.sha256(_decisive(fields)).hexdigest(),
        calibration=_calibration(path, members),
        label_map=_label_map(path, manifest, members),
    )


def _decisive(fields: Mapping[str, Any]) -> bytes:
    """Return the manifest without fields that cannot change codes or scores: an index stays valid when they change."""
    hashes = {name: value for name, value in fields["members"].items() if name not in (CALIBRATION, CARD)}
    return _json({name: value for name, value in fields.items() if name != "parents"} | {"members": hashes})


def _calibration(path: Path, members: Mapping[str, bytes]) -> Calibration | None:
    if CALIBRATION not in members:
        return None
    try:
        return Calibration.from_dict(json.loads(members[CALIBRATION]))
    except (LesaError, ValueError, RecursionError) as error:
        raise LesaError(f"{path}: {CALIBRATION} cannot be read: {error}") from None


def _label_map(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> LabelMap | None:
    expected = manifest.vector_size, manifest.code_size
    if LABEL_MAP not in members:
        if manifest.vector_size != manifest.code_size:
            raise LesaError(
                f"{path}: label vectors of {expected[0]} numbers and codes of {expected[1]} need {LABEL_MAP}"
            )
        return None
    try:
        label_map = LabelMap.from_bytes(members[LABEL_MAP])
    except LesaError as error:
        raise LesaError(f"{path}: {error}: export the run again") from None
    given = label_map.anchors_AE.shape[1], label_map.code_size
    if given != expected:
        raise LesaError(f"{path}: {LABEL_MAP} maps {given[0]} numbers to {given[1]}, the manifest says {expected}")
    return label_map


def _parse(path: Path, content: bytes) -> tuple[dict[str, Any], Manifest, dict[str, str]]:
    """Return the manifest as it is in JSON, as an object, and the hashes of the other members."""
    try:
        fields = json.loads(content)
        given = fields.get("format")
        if given != FORMAT:
            raise LesaError(f"its format is {given!r}, this version reads {FORMAT!r}: export the run again")
        hashes = dict(fields["members"])
        manifest = Manifest.from_dict(fields)
    except LesaError as error:
        raise LesaError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise LesaError(f"{path}: {MANIFEST} is damaged ({error!r}): export or copy the bundle again") from None
    if odd := [name for name in hashes if not NAME.fullmatch(name)]:
        raise LesaError(f"{path}: the member {odd[0]!r} is not a plain name: expected letters, digits, `.`, `_`, `-`")
    if missing := {GRAPH, LABELS, CARD} - set(hashes):
        raise LesaError(f"{path} lacks {', '.join(sorted(missing))}: export the run again")
    return fields, manifest, hashes


def read_labels(
    path: Path, manifest: Manifest, content: bytes
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]] | None]:
    """Return the labels' unit vectors and the sources' means."""
    try:
        tensors = load(content)
        scale_C = tensors["scale"] if tensors["vectors"].dtype == np.int8 else np.ones(1, np.float32)
        vectors_CE = tensors["vectors"].astype(np.float32)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise LesaError(f"{path}: {LABELS} cannot be read ({error}): export the run again") from None
    expected = (len(manifest.names), manifest.vector_size)
    if vectors_CE.shape != expected:
        raise LesaError(f"{path}: {LABELS} holds vectors of shape {vectors_CE.shape}, the manifest says {expected}")
    if scale_C.shape not in ((1,), expected[:1]):
        raise LesaError(f"{path}: {LABELS} holds {scale_C.shape} scales for {expected[0]} vectors: export again")
    vectors_CE *= scale_C.astype(np.float32)[:, None]
    means = [tensors[f"mean.{i}"] for i in range(len(manifest.sources)) if f"mean.{i}" in tensors]
    if means and (len(means) != len(manifest.sources) or sum(mean.size for mean in means) != manifest.vector_size):
        sizes = [mean.shape for mean in means]
        raise LesaError(
            f"{path}: {LABELS} holds means of shapes {sizes}, together not {manifest.vector_size} values: export again"
        )
    return unit(vectors_CE, manifest.names), means or None


def _folder_reader(path: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError:
            raise LesaError(f"{path} is not a whole bundle: it has no {name}; export the run again") from None

    return read


def _zip_reader(path: Path, archive: zipfile.ZipFile) -> Read:
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise LesaError(f"{path} holds a member twice: it is not a bundle")
    for info in archive.infolist():
        if not NAME.fullmatch(info.filename):
            raise LesaError(
                f"{path}: the member {info.filename!r} is not a plain name: expected letters, digits, `.`, `_`, `-`"
            )
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise LesaError(f"{path}: {info.filename} is compressed or encrypted: pack it again with `zip -0`")

    def read(name: str) -> bytes:
        if name not in names:
            raise LesaError(f"{path} is not a whole bundle: it has no {name}; export the run again")
        return archive.read(name)

    return read


def _preprocessing(fields: Any) -> Preprocessing:
    made = Preprocessing.from_dict(fields)
    named = made.fit in ("crop", "squash") and made.resample in RESAMPLE
    sized = all(type(side) is int and 1 <= side <= LARGEST for side in (made.size, made.short_side))
    numbers = (*made.mean, *made.std, made.scale)
    if not (named and sized and len(made.mean) == len(made.std) == 3 and np.isfinite(numbers).all() and all(made.std)):
        raise ValueError(f"{made} has values outside their limits")
    return made


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("expected a list of texts")
    return tuple(values)
