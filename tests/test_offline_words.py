"""Words that work offline: 8-bit vectors in a bundle, singulars and plurals, phrases composed of words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from lesa.bundle import CARD, GRAPH, LABELS, Manifest, open_bundle, pack_labels, write_bundle
from lesa.errors import LesaError
from lesa.images import Preprocessing
from lesa.tagger import Tagger
from lesa.vectors import write_table

WORDS = ("car", "red", "rider", "horse", "fire engine", "puppy")
MANIFEST = Manifest(
    preprocessing=Preprocessing(
        fit="squash",
        size=32,
        short_side=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        scale=1 / 255,
        resample="bilinear",
    ),
    grid=(1, 1),
    attentions=1,
    vector_size=16,
    code_size=16,
    selection="max",
    unseen=(),
    seen=("dog",),
    words=WORDS,
    sources=("words.safetensors",),
    composed=True,
)
VECTORS = np.random.default_rng(0).normal(size=(len(MANIFEST.names), 16)).astype(np.float32)


def write(path: Path, manifest: Manifest = MANIFEST, labels: bytes | None = None) -> Path:
    content = labels or pack_labels(VECTORS, None, bits=8)
    write_bundle(path, manifest, {GRAPH: b"none", LABELS: content, CARD: b"card"})
    return path


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)


def test_vectors_in_8_bits_are_a_quarter_and_nearly_the_same(tmp_path: Path) -> None:
    opened = open_bundle(write(tmp_path / "a.lesa"))
    assert ((opened.vectors_CE * units(VECTORS)).sum(axis=1) > 0.9999).all()
    many = np.tile(VECTORS, (100, 24))
    assert len(pack_labels(many, None, bits=8)) < 0.27 * len(pack_labels(many, None))


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors = load(pack_labels(VECTORS, None, bits=8))
    for scale, message in (np.ones(3, np.float32), "3,.* scales"), (np.full(7, np.nan, np.float32), "not finite"):
        path = write(tmp_path / "a.lesa", labels=save({**tensors, "scale": scale}))
        with pytest.raises(LesaError, match=message):
            open_bundle(path)
    path = write(tmp_path / "b.lesa", labels=save({"vectors": tensors["vectors"]}))
    with pytest.raises(LesaError, match="cannot be read"):
        open_bundle(path)


def test_a_phrase_is_the_mean_of_its_words(tmp_path: Path) -> None:
    tagger = Tagger(write(tmp_path / "a.lesa"))
    labels = tagger.labels(["red cars", "Fire engines", "a rider on the horses", "dogs"])
    known = tagger.bundle.vectors_CE
    assert labels.composed == ("red cars", "a rider on the horses")
    np.testing.assert_allclose(labels.points_CE[0], units(known[2] + known[1]), atol=1e-6)
    np.testing.assert_allclose(labels.points_CE[1], known[5])
    np.testing.assert_allclose(labels.points_CE[2], units(known[3] + known[4]), atol=1e-6)
    assert labels.seen == (False, False, False, True)


def test_an_unknown_word_is_named_with_near_ones(tmp_path: Path) -> None:
    tagger = Tagger(write(tmp_path / "a.lesa"))
    with pytest.raises(LesaError, match=r"no vector for 'hrose': did you mean 'horse'"):
        tagger.labels(["red hrose"])
    with pytest.raises(LesaError, match="no vector for 'the'"):
        tagger.labels(["the"])


def test_given_vectors_are_used_instead_of_composing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lesa")
    write_table(tmp_path / "exact.safetensors", ["dog", "red car"], np.stack([VECTORS[0], VECTORS[3]]))
    labels = Tagger(path, [str(tmp_path / "exact.safetensors")]).labels(["red car"])
    assert labels.composed == ()
    np.testing.assert_allclose(labels.points_CE[0], units(VECTORS[3]), atol=1e-6)


def test_other_bundles_do_not_compose(tmp_path: Path) -> None:
    with pytest.raises(LesaError, match="does not exist"):
        Tagger(write(tmp_path / "a.lesa", replace(MANIFEST, composed=False))).labels(["red car"])


def test_hyphens_and_plurals_find_the_carried_name(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, words=("hot dog", "potato", "fire engine"))
    content = pack_labels(VECTORS[: len(manifest.names)], None, bits=8)
    tagger = Tagger(write(tmp_path / "a.lesa", manifest, content))
    names = ["hot_dog", "hot-dog", "Hot-dogs", "potatoes", "fire-engines"]
    labels = tagger.labels(names)
    assert labels.composed == ()
    assert [tagger.canonical(name) for name in names] == ["hot dog", "hot dog", "hot dog", "potato", "fire engine"]
