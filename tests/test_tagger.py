"""Tags of photos by any words, in Python and on the command line; a photo is read once, whatever is asked of it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy import ndimage
from scipy.special import logsumexp, softmax

from helpers.small_run import OTHERS, SEEN, UNSEEN, make_collection, make_demo_run, make_run
from lesa.cli.tag import tag as tag_command
from lesa.codes import Codes, evidence, peak_box, select, shifted
from lesa.errors import LesaError
from lesa.images import list_photos
from lesa.learn.datasets.dataset import read_dataset
from lesa.learn.export import export_run
from lesa.tagger import Tagger
from lesa.vectors import write_table

NAMES = UNSEEN + SEEN


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    make_collection(folder)
    export_run(make_run(folder, folder / "run"), folder / "small.lesa", words=["moon"])
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def tagger(collection: Path) -> Tagger:
    return Tagger(collection / "small.lesa")


@pytest.fixture(scope="module")
def photo(collection: Path) -> Path:
    return collection / "photos" / "cat-0.jpg"


# In Python


def test_tags_are_the_best_labels_with_their_places(tagger: Tagger, photo: Path) -> None:
    tags = tagger.tag(photo)
    assert len(tags) == 5
    assert [tag.score for tag in tags] == sorted((tag.score for tag in tags), reverse=True)
    assert len(tagger.tag(photo, top=None)) == len(NAMES)
    limit = tags[2].score
    assert [tag.label for tag in tagger.tag(photo, top=None, threshold=limit)] == [tag.label for tag in tags[:3]]
    for tag in tags:
        assert tag.seen == (tag.label in SEEN)
        assert tag.evidence.shape == tagger.bundle.manifest.grid
        left, top, right, bottom = tag.box
        assert 0 <= left < right <= 120
        assert 0 <= top < bottom <= 80


@given(asked=st.lists(st.sampled_from(NAMES + OTHERS), min_size=1, unique=True))
def test_a_labels_score_does_not_depend_on_the_other_labels(tagger: Tagger, photo: Path, asked: list[str]) -> None:
    everything = {tag.label: tag for tag in tagger.tag(photo, NAMES + OTHERS, top=None)}
    tags = tagger.tag(photo, asked, top=None)
    assert {tag.label for tag in tags} == set(asked)
    for tag in tags:
        assert tag.score == pytest.approx(everything[tag.label].score, rel=1e-5, abs=1e-5)
        assert tag.box == everything[tag.label].box


def test_changing_the_labels_does_not_read_the_photo_again(collection: Path, photo: Path, tmp_path: Path) -> None:
    tagger, copy = Tagger(collection / "small.lesa"), tmp_path / "photo.jpg"
    copy.write_bytes(photo.read_bytes())
    first = tagger.tag(copy)
    about = copy.stat()
    copy.write_bytes(b"x" * about.st_size)
    os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert [tag.score for tag in tagger.tag(copy)] == [tag.score for tag in first]
    assert tagger.tag(copy, labels=["car", "moon"], top=1)[0].label in {"car", "moon"}
    # A photo that changed is read again.
    os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    with pytest.raises(LesaError, match=r"photo\.jpg is not a photo"):
        tagger.tag(copy)


def test_words_that_the_bundle_carries_need_no_source(collection: Path, photo: Path, tmp_path: Path) -> None:
    (collection / "vectors.txt").rename(tmp_path / "vectors.txt")
    try:
        tagger = Tagger(collection / "small.lesa")
        assert {tag.label for tag in tagger.tag(photo, ["moon", "Cat"])} == {"moon", "Cat"}
        with pytest.raises(LesaError, match=r"does not carry \(Paris\): .*vectors\.txt does not exist"):
            tagger.tag(photo, ["moon", "Paris"])
        moved = Tagger(collection / "small.lesa", vectors=[str(tmp_path / "vectors.txt")])
        found = moved.tag(photo, ["Paris", "red car"], top=None)
    finally:
        (tmp_path / "vectors.txt").rename(collection / "vectors.txt")
    expected = Tagger(collection / "small.lesa").tag(photo, ["Paris", "red car"], top=None)
    assert [(tag.label, tag.score) for tag in found] == [(tag.label, tag.score) for tag in expected]
    assert not any(tag.seen for tag in found)


def test_a_word_in_other_letters_is_the_label(tagger: Tagger, photo: Path) -> None:
    (tag,), (other,) = tagger.tag(photo, ["CAT"]), tagger.tag(photo, ["cat"])
    assert (tag.label, tag.score, tag.seen) == ("CAT", other.score, True)


def test_words_without_vectors_and_labels_that_are_none_are_refused(tagger: Tagger, photo: Path) -> None:
    with pytest.raises(LesaError, match="has no vector for 'qwertz'"):
        tagger.tag(photo, ["cat", "qwertz"])
    with pytest.raises(LesaError, match="no label was given"):
        tagger.tag(photo, [])
    with pytest.raises(LesaError, match="give a list of labels"):
        tagger.tag(photo, "cat")


def test_vectors_that_are_not_the_bundles_are_refused(collection: Path, photo: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for size in (16, 8):
        table = tmp_path / f"{size}.safetensors"
        write_table(table, [*NAMES, "car"], random.normal(size=(len(NAMES) + 1, size)).astype(np.float32))
        with pytest.raises(LesaError, match=r"another vector|holds vectors of 8 numbers"):
            Tagger(collection / "small.lesa", vectors=[str(table)]).tag(photo, ["car"])
    with pytest.raises(LesaError, match="2 sources of vectors were given"):
        Tagger(collection / "small.lesa", vectors=["a.txt", "b.txt"])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_many_photos_come_in_order_and_broken_ones_with_the_reason(
    collection: Path, tagger: Tagger, batch_size: int
) -> None:
    photos = [str(collection / "photos" / name) for name in list_photos(collection / "photos")]
    photos[4:4] = [str(collection / "broken.jpg"), str(collection / "missing.jpg")]
    found = list(tagger.stream(photos, batch_size))
    assert [photo for photo, _ in found] == photos
    broken = {photo: str(codes) for photo, codes in found if isinstance(codes, LesaError)}
    assert list(broken) == photos[4:6]
    assert "missing.jpg does not exist" in broken[photos[5]]
    for photo, codes in found:
        if isinstance(codes, Codes):
            np.testing.assert_allclose(codes.codes_ME, tagger.codes(photo).codes_ME, atol=1e-4)


def test_only_broken_photos_are_no_batch(collection: Path, tagger: Tagger) -> None:
    assert [type(codes) for _, codes in tagger.stream([collection / "broken.jpg"])] == [LesaError]
    with pytest.raises(LesaError, match=r"missing\.jpg does not exist"):
        tagger.tag(collection / "missing.jpg")


def test_a_photo_on_its_side_gets_the_upright_photos_tags(tagger: Tagger, photo: Path, tmp_path: Path) -> None:
    with Image.open(photo) as image:
        image.save(tmp_path / "upright.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright, turned = tagger.tag(tmp_path / "upright.png"), tagger.tag(tmp_path / "turned.png")
    assert tagger.codes(tmp_path / "turned.png").size == (120, 80)
    assert [(tag.label, tag.score, tag.box) for tag in turned] == [(tag.label, tag.score, tag.box) for tag in upright]


MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.floats(-90, 90, width=32)
)


@given(by_code_MC=MATRICES)
def test_scores_follow_from_the_codes_as_scipy_has_it(by_code_MC: np.ndarray) -> None:
    exact = by_code_MC.astype(np.float64)
    expected_C = logsumexp(exact, axis=0) - np.log(len(exact))
    np.testing.assert_allclose(select(by_code_MC, "log-mean-exp"), expected_C, atol=1e-4)
    np.testing.assert_array_equal(select(by_code_MC, "max"), exact.max(axis=0))


@given(data=st.data(), unit_codes=st.booleans())
def test_evidence_weighted_with_the_winners_attention_is_the_score(data: st.DataObject, unit_codes: bool) -> None:
    M, R, E, C = (data.draw(st.integers(1, most)) for most in (4, 9, 5, 6))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    regions_RE, logits_MR, vectors_CE = (random.normal(size=size) for size in ((R, E), (M, R), (C, E)))
    attention_MR = softmax(logits_MR, axis=1)
    codes_ME = attention_MR @ regions_RE
    if unit_codes:
        codes_ME *= 14 / np.linalg.norm(codes_ME, axis=1, keepdims=True)
    found_CR = evidence(Codes(codes_ME, attention_MR, regions_RE, (1, 1)), vectors_CE)
    by_code_MC = codes_ME @ vectors_CE.T
    weighted_C = (attention_MR[by_code_MC.argmax(axis=0)] * found_CR).sum(axis=1)
    np.testing.assert_allclose(weighted_C, select(by_code_MC, "max"), rtol=1e-9, atol=1e-9)
    soft_C = select(by_code_MC, "log-mean-exp")
    assert np.all((weighted_C >= soft_C - 1e-9) & (weighted_C <= soft_C + np.log(M) + 1e-9))


GRIDS = arrays.arrays(np.float32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 9))


@given(attention=GRIDS)
def test_a_box_holds_the_regions_joined_to_the_hottest(attention: np.ndarray) -> None:
    groups, _ = ndimage.label(attention >= attention.max() / 2)
    hottest = np.unravel_index(attention.argmax(), attention.shape)
    down, across = ndimage.find_objects((groups == groups[hottest]).astype(int))[0]
    expected = (5 + 10 * across.start, 20 * down.start, 5 + 10 * across.stop, 20 * down.stop)
    rows, columns = attention.shape
    assert peak_box(attention, (5, 0, 5 + 10 * columns, 20 * rows)) == expected


# On the command line


def tag(*arguments: object) -> None:
    tag_command.main([str(each) for each in arguments], standalone_mode=False)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files_folders_patterns_and_a_list_are_photos_each_once(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(collection)
    monkeypatch.setattr(sys, "stdin", io.StringIO("photos/rocket-0.jpg\n\nphotos/cat-0.jpg\r\n"))
    tag("photos/cat-0.jpg", "photos/coffee-*.jpg", "-", "--bundle", "small.lesa", "-o", tmp_path / "deep" / "a.jsonl")
    photos = [line["photo"] for line in lines_of(tmp_path / "deep" / "a.jsonl")]
    assert photos == ["photos/cat-0.jpg", *(f"photos/coffee-{i}.jpg" for i in range(6)), "photos/rocket-0.jpg"]
    tag("photos", "--bundle", "small.lesa", "-o", tmp_path / "b.jsonl")
    assert len(lines_of(tmp_path / "b.jsonl")) == 24
    with pytest.raises(LesaError, match="no photo fits the pattern"):
        tag("photos/dog-*.jpg", "--bundle", "small.lesa")
    with pytest.raises(LesaError, match="standard input is empty"):
        tag("-", "--bundle", "small.lesa")


def test_the_formats_hold_the_same_tags(
    collection: Path, tagger: Tagger, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = tagger.tag(photo, ["moon", "cat", "red car"], top=2)
    (collection / "labels.txt").write_text("moon\r\ncat\r\n\r\nred car\r\n")
    command = (photo, "--bundle", collection / "small.lesa", "--labels", collection / "labels.txt", "--top", 2)
    tag(*command)
    assert capsys.readouterr().out == f"{photo}  " + "  ".join(f"{t.label} {t.score:.2f}" for t in expected) + "\n"
    tag(*command, "--format", "jsonl")
    (line,) = capsys.readouterr().out.splitlines()
    entry = json.loads(line)
    assert (entry["photo"], entry["size"]) == (str(photo), [120, 80])
    assert [(t["label"], t["score"], t["seen"], tuple(t["box"])) for t in entry["tags"]] == [
        (t.label, round(t.score, 4), t.seen, t.box) for t in expected
    ]
    tag(*command, "--format", "csv")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["label"], row["score"], int(row["right"])) for row in rows] == [
        (t.label, f"{t.score:.4f}", t.box[2]) for t in expected
    ]
    tag(*command, "--format", "csv", "-o", collection / "tags.csv")
    assert list(csv.DictReader((collection / "tags.csv").read_text().splitlines())) == rows
    with pytest.raises(LesaError, match="a table is for the screen"):
        tag(*command, "--format", "table", "-o", collection / "tags.txt")


def test_an_interrupted_file_is_gone_on_with(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (collection / "photos", "--bundle", collection / "small.lesa", "-o")
    tag(*command, tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    # Stopped in the middle of a line.
    cut = whole.index(b"\n", len(whole) // 2) - 20
    (tmp_path / "cut.jsonl").write_bytes(whole[:cut])
    tag(*command, tmp_path / "cut.jsonl")
    assert whole[:cut].count(b"\n") > 5
    assert f"{whole[:cut].count(bytes([10]))} were there already" in capsys.readouterr().out
    assert [line["photo"] for line in lines_of(tmp_path / "cut.jsonl")] == [
        line["photo"] for line in lines_of(tmp_path / "whole.jsonl")
    ]
    tag(*command, tmp_path / "cut.jsonl")
    assert len(lines_of(tmp_path / "cut.jsonl")) == 24


def test_a_file_of_other_settings_or_of_another_program_is_left_alone(collection: Path, tmp_path: Path) -> None:
    command = (collection / "photos", "--bundle", collection / "small.lesa", "-o", tmp_path / "a.jsonl")
    tag(*command)
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(LesaError, match=r"a\.jsonl:1 was tagged with another bundle, labels"):
        tag(*command, "--top", 2)
    assert (tmp_path / "a.jsonl").read_bytes() == before
    (tmp_path / "a.jsonl").write_text("my notes\n")
    with pytest.raises(LesaError, match=r"a\.jsonl:1 is not a line that `lesa tag` wrote"):
        tag(*command)
    (tmp_path / "a.jsonl").write_text("my notes")
    with pytest.raises(LesaError, match=r"a\.jsonl"):
        tag(*command)
    assert (tmp_path / "a.jsonl").read_text() == "my notes"


def test_broken_photos_are_reported_and_the_rest_is_done(
    collection: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = (collection / "broken.jpg", collection / "missing.jpg")
    tag(*broken, photo, "--bundle", collection / "small.lesa", "-o", tmp_path / "a.jsonl")
    printed = capsys.readouterr()
    assert "1 photos tagged" in printed.out
    assert "2 failed" in printed.out
    assert "broken.jpg is not a photo" in printed.err
    assert "missing.jpg does not exist" in printed.err
    assert [line["photo"] for line in lines_of(tmp_path / "a.jsonl")] == [str(photo)]
    with pytest.raises(LesaError, match="none of the photos could be read"):
        tag(*broken, "--bundle", collection / "small.lesa")


def test_a_threshold_alone_keeps_every_tag_above_it(
    collection: Path, tagger: Tagger, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = tagger.tag(photo, top=None)
    tag(photo, "--bundle", collection / "small.lesa", "--threshold", tags[5].score, "--format", "csv")
    assert len(capsys.readouterr().out.splitlines()) == 1 + 6


def test_file_names_of_any_bytes_are_tagged(
    collection: Path, photo: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    odd = tmp_path / "photos" / os.fsdecode(b"caf\xe9, [1]\n.jpg")
    odd.parent.mkdir()
    odd.write_bytes(photo.read_bytes())
    for form in ("jsonl", "csv"):
        tag(odd.parent, "--bundle", collection / "small.lesa", "--format", form, "-o", tmp_path / form)
        tag(odd.parent, "--bundle", collection / "small.lesa", "--format", form)
    assert lines_of(tmp_path / "jsonl")[0]["photo"] == str(odd)
    assert b"caf\xe9, [1]\n.jpg" in capsysbinary.readouterr().out
    tag(odd.parent, "--bundle", collection / "small.lesa", "-o", tmp_path / "jsonl")
    assert b"1 were there already" in capsysbinary.readouterr().out
    tag(odd, "--bundle", collection / "small.lesa")
    assert rb"caf\udce9, [1]\n.jpg  " in capsysbinary.readouterr().out


LIGHT = """
import sys
from lesa.cli.tag import tag
try: tag.main(sys.argv[1:], prog_name="lesa tag")
except SystemExit as done: code = done.code
sys.stderr.write(" ".join(sorted({} & set(sys.modules))))
sys.exit(code)
"""
LEARNING = {"torch", "transformers", "scipy", "pydantic", "onnx", "matplotlib", "sentence_transformers", "lesa.learn"}


def test_tagging_never_imports_pytorch(collection: Path, photo: Path) -> None:
    (collection / "words.txt").write_text("red car\nParis\n")
    command = [photo, collection / "broken.jpg", "--bundle", collection / "small.lesa", "--labels"]
    program = [sys.executable, "-c", LIGHT.format(LEARNING), *command, collection / "words.txt"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert done.stderr == f"lesa: {collection / 'broken.jpg'} is not a photo that can be read\n"


def test_help_imports_nothing_that_takes_time() -> None:
    heavy = LEARNING | {"onnxruntime", "numpy", "PIL", "safetensors"}
    program = [sys.executable, "-c", LIGHT.format(heavy), "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Example:" in done.stdout


@pytest.mark.shared
def test_labels_of_real_photos_rank_before_others(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path / "cache"))
    run = make_demo_run(tmp_path, shared, epochs=3)
    assert export_run(run, tmp_path / "demo.lesa") < 1e-4

    tagger, split = Tagger(tmp_path / "demo.lesa"), read_dataset(tmp_path / "dataset").split("test")
    images = shared / "data" / "flickr8k" / "Images"
    ahead: dict[str, list[float]] = {"unseen": [], "seen": []}
    unseen = len(run.vocabulary.unseen)
    targets_NC = split.targets.dense(slice(0, 100))
    for (_, codes), targets_C in zip(
        tagger.stream([images / photo for photo in split.photos[:100]]), targets_NC, strict=True
    ):
        assert isinstance(codes, Codes)
        scores = {tag.label: tag.score for tag in tagger.rank(codes, tagger.labels(), top=None)}
        scores_C = np.array([scores[name] for name in run.vocabulary.names])
        for kind, columns in ("unseen", slice(0, unseen)), ("seen", slice(unseen, None)):
            present = targets_C[columns] > 0
            if present.any():
                pairs = scores_C[columns][present][:, None] > scores_C[columns][~present][None]
                ahead[kind].append(float(pairs.mean()))
    # 0.5 is chance.
    assert np.mean(ahead["seen"]) > 0.75
    assert np.mean(ahead["unseen"]) > 0.65


def test_a_map_moves_by_its_offset() -> None:
    spot_HW = np.zeros((4, 5), np.float32)
    spot_HW[1, 2] = 4
    np.testing.assert_array_equal(shifted(spot_HW, 0.0), spot_HW)
    moved_HW = shifted(spot_HW, 0.5)
    assert moved_HW[1:3, 2:4].tolist() == [[1, 1], [1, 1]]
    assert moved_HW.sum() == 4
    np.testing.assert_allclose(shifted(np.full((3, 3), 2, np.float32), 0.3), 2)
