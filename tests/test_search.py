"""An index of photos' codes: an update reads only new and changed photos; searches by words and by a photo."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.special import logsumexp
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import cosine_similarity

from helpers.small_run import OTHERS, SEEN, UNSEEN, make_collection, make_demo_run, make_run
from lesa.cli.index import index as index_command
from lesa.cli.search import search as search_command
from lesa.codes import Codes, peak_box
from lesa.errors import LesaError
from lesa.images import SUFFIXES, crop_box, list_photos
from lesa.index import neighbours, search
from lesa.index import update as indexing
from lesa.index.contact_sheet import FRAME
from lesa.index.files import record_type
from lesa.index.neighbours import Neighbours, build_neighbours
from lesa.index.search import Index
from lesa.index.update import Changes, pack, update_index, update_neighbours, wants_neighbours
from lesa.learn.export import export_run
from lesa.tagger import Tagger

WORDS = UNSEEN + SEEN + OTHERS


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    make_collection(folder)
    export_run(make_run(folder, folder / "run"), folder / "small.lesa")
    export_run(make_run(folder, folder / "other-run", attentions=2), folder / "other.lesa")
    return folder


@pytest.fixture(scope="module")
def tagger(collection: Path) -> Tagger:
    return Tagger(collection / "small.lesa")


@pytest.fixture(scope="module")
def index(collection: Path, tagger: Tagger) -> Index:
    update_index(collection / "index", collection / "photos", tagger)
    return Index(collection / "index", tagger)


@pytest.fixture
def photos(collection: Path, tmp_path: Path) -> Path:
    """A copy of the photos to change."""
    return shutil.copytree(collection / "photos", tmp_path / "photos")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "BLOCK", 5)
    monkeypatch.setattr(search, "ROWS_AT_ONCE", 7)


def scores_of(index: Index, word: str = "moon") -> dict[str, float]:
    return {hit.photo: hit.score for hit in index.find(word, top=len(index))}


# Searching


def attended(tagger: Tagger, photo: Path, word: str) -> tuple[int, int, int, int]:
    """Return the box of the attention of the word's winning code: an index does not store evidence."""
    codes, manifest = tagger.codes(photo), tagger.bundle.manifest
    winner = (codes.codes_ME @ tagger.labels([word]).points_CE[0]).argmax()
    return peak_box(codes.attention_MR[winner].reshape(manifest.grid), crop_box(codes.size, manifest.preprocessing))


@pytest.mark.parametrize("word", WORDS)
def test_photos_are_found_as_their_float_codes_rank_them(collection: Path, tagger: Tagger, word: str) -> None:
    update_index(collection / "index", collection / "photos", tagger)
    index = Index(collection / "index", tagger)
    tags = {name: tagger.tag(collection / "photos" / name, [word])[0] for name in list_photos(collection / "photos")}
    hits = index.find(word, top=100)
    assert len(hits) == len(index) == 24
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    # Six crops of each of four photos: some scores are nearly the same.
    assert spearmanr([hit.score for hit in hits], [tags[hit.photo].score for hit in hits]).statistic > 0.99
    for hit in hits:
        assert hit.size == (120, 80)
        record = pack(tagger.codes(collection / "photos" / hit.photo), tagger.bundle.manifest.grid)
        # Rounding changes each number of a code by at most half a step.
        most = record["scales"].max() / 2 * np.abs(tagger.labels([word]).points_CE).sum()
        assert hit.score == pytest.approx(tags[hit.photo].score, abs=float(most))
    assert np.mean([hit.box == attended(tagger, collection / "photos" / hit.photo, word) for hit in hits]) > 0.9
    assert index.find(word, top=3) == hits[:3]


def test_a_score_is_the_float64_one_of_the_stored_codes(collection: Path, index: Index, tagger: Tagger) -> None:
    vector_E = tagger.labels(["moon"]).points_CE[0].astype(np.float64)
    for name, score in scores_of(index).items():
        record = pack(tagger.codes(collection / "photos" / name), tagger.bundle.manifest.grid)
        by_code_M = (record["codes"].astype(np.float64) @ vector_E) * record["scales"]
        assert score == pytest.approx(logsumexp(by_code_M) - np.log(len(by_code_M)), abs=1e-4)


def test_photos_alike_are_those_whose_codes_are_nearest_either_way(
    collection: Path, index: Index, tagger: Tagger
) -> None:
    names, given_photo = list_photos(collection / "photos"), collection / "photos" / "coffee-3.jpg"
    hits = index.like(given_photo, top=100)
    assert hits[0].photo == given_photo.name
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    scores = {hit.photo: hit.score for hit in hits}
    for name in names:
        codes = (tagger.codes(given_photo).codes_ME, tagger.codes(collection / "photos" / name).codes_ME)
        cosines_MM = cosine_similarity(*codes)
        expected = (cosines_MM.max(axis=0).mean() + cosines_MM.max(axis=1).mean()) / 2
        assert scores[name] == pytest.approx(expected, abs=5e-3)
        # Symmetric: the other photo finds this one with the same score.
        back = {hit.photo: hit.score for hit in index.like(collection / "photos" / name, top=100)}
        assert back[given_photo.name] == pytest.approx(scores[name], abs=5e-3)


CODES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(-100, 100, width=32)
)


@given(codes_ME=CODES)
def test_eight_bits_are_within_half_a_step_of_each_code(codes_ME: np.ndarray) -> None:
    attention_MR = np.full((len(codes_ME), 6), 1 / 6, dtype=np.float32)
    record = pack(Codes(codes_ME, attention_MR, np.zeros((6, codes_ME.shape[1]), np.float32), (30, 20)), (2, 3))
    near_ME = record["codes"] * record["scales"][:, None].astype(np.float64)
    step_M1 = np.abs(codes_ME.astype(np.float64)).max(axis=1, keepdims=True) / 127
    assert (np.abs(near_ME - codes_ME) <= step_M1 * 0.5001 + 1e-30).all()
    assert record["boxes"].tolist() == [[0, 0, 3, 2]] * len(codes_ME)


def test_words_without_vectors_are_refused(index: Index) -> None:
    with pytest.raises(LesaError, match="has no vector for 'qwertz'"):
        index.find("qwertz")


# Keeping an index up to date


def test_new_changed_and_removed_photos_are_noticed_and_no_other_is_read(
    photos: Path, tmp_path: Path, tagger: Tagger, small_blocks: None
) -> None:
    path = tmp_path / "index"
    assert update_index(path, photos, tagger) == Changes(24, 0, 0, 0, {})
    before = scores_of(Index(path, tagger))
    # The photo is damaged, but size and time are unchanged, so it is not read again.
    stat = (photos / "cat-1.jpg").stat()
    (photos / "cat-1.jpg").write_bytes(b"x" * stat.st_size)
    os.utime(photos / "cat-1.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.copy(photos / "rocket-0.jpg", photos / "cat-0.jpg")
    (photos / "coffee-0.jpg").unlink()
    (photos / "deep").mkdir()
    shutil.copy(photos / "rocket-0.jpg", photos / "deep" / "new.jpg")
    assert update_index(path, photos, tagger) == Changes(1, 1, 1, 22, {})
    after = scores_of(Index(path, tagger))
    assert after.keys() == before.keys() - {"coffee-0.jpg"} | {"deep/new.jpg"}
    assert [after["cat-0.jpg"], after["deep/new.jpg"]] == pytest.approx([before["rocket-0.jpg"]] * 2, abs=1e-3)
    assert all(after[name] == before[name] for name in before if name not in ("cat-0.jpg", "coffee-0.jpg"))
    files = contents(path)
    assert update_index(path, photos, tagger) == Changes(0, 0, 0, 24, {})
    assert contents(path) == files


def test_the_page_lists_the_endings_of_photos() -> None:
    page = (Path(__file__).parents[1] / "docs" / "searching.md").read_text(encoding="utf-8")
    sentence = page[page.index("* The index holds all files") : page.index("Hidden files")]
    assert set(re.findall(r"`(\.\w+)`", sentence)) == SUFFIXES


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_photos_that_cannot_be_read_are_listed_and_tried_again(photos: Path, tmp_path: Path, tagger: Tagger) -> None:
    path, good = tmp_path / "index", (photos / "cat-0.jpg").read_bytes()
    for name in ("cat-0.jpg", "cat-1.jpg"):
        (photos / name).write_bytes(b"no photo")
    changes = update_index(path, photos, tagger)
    assert (changes.new, sorted(changes.failed)) == (22, ["cat-0.jpg", "cat-1.jpg"])
    assert "cat-0.jpg is not a photo" in changes.failed["cat-0.jpg"]
    assert Index(path, tagger).failed == changes.failed
    assert update_index(path, photos, tagger) == Changes(0, 0, 0, 22, changes.failed)
    (photos / "cat-0.jpg").write_bytes(good)
    (photos / "cat-1.jpg").unlink()
    (photos / "cat-2.jpg").write_bytes(b"damaged since")
    changes = update_index(path, photos, tagger)
    assert (changes.new, changes.changed, changes.removed, list(changes.failed)) == (1, 0, 1, ["cat-2.jpg"])
    assert scores_of(Index(path, tagger)).keys() == set(list_photos(photos)) - {"cat-2.jpg"}


@pytest.mark.parametrize("after", [1, 4, 12, 23])
def test_work_that_stopped_loses_less_than_a_block(
    photos: Path, tmp_path: Path, tagger: Tagger, small_blocks: None, after: int
) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 24
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(tmp_path / "index", photos, tagger, stop)
    # Now the files look as after a stop in the middle of a commit.
    for name in ("codes-00000.i8", "photos-00000.jsonl"):
        with (tmp_path / "index" / name).open("ab") as file:
            file.write(b'{"photo": "cut')
    if after > 5:
        assert len(Index(tmp_path / "index", tagger)) == after // 5 * 5
    changes = update_index(tmp_path / "index", photos, tagger)
    assert (changes.unchanged, changes.new) == (after // 5 * 5, 24 - after // 5 * 5)
    update_index(tmp_path / "whole", photos, tagger)
    stopped, whole = scores_of(Index(tmp_path / "index", tagger)), scores_of(Index(tmp_path / "whole", tagger))
    assert stopped == pytest.approx(whole, abs=1e-3)


def test_an_index_of_mostly_outdated_codes_is_written_anew(
    photos: Path, tmp_path: Path, tagger: Tagger, small_blocks: None
) -> None:
    path = tmp_path / "index"
    (photos / "broken.jpg").write_bytes(b"no photo")
    update_index(path, photos, tagger)
    before, size = scores_of(Index(path, tagger)), (path / "codes-00000.i8").stat().st_size
    for name in sorted(before)[:13]:
        (photos / name).unlink()
    changes = update_index(path, photos, tagger)
    assert (changes.removed, changes.unchanged) == (13, 11)
    assert sorted(contents(path)) == ["codes-00001.i8", "manifest.json", "photos-00001.jsonl"]
    assert (path / "codes-00001.i8").stat().st_size * 24 == size * 11
    index = Index(path, tagger)
    assert scores_of(index) == {name: before[name] for name in sorted(before)[13:]}
    assert list(index.failed) == ["broken.jpg"]
    assert update_index(path, photos, tagger).unchanged == 11


def test_a_folder_that_moved_is_known_and_another_one_is_refused(photos: Path, tmp_path: Path, tagger: Tagger) -> None:
    update_index(tmp_path / "index", photos, tagger)
    moved = photos.rename(tmp_path / "moved")
    assert update_index(tmp_path / "index", moved, tagger) == Changes(0, 0, 0, 24, {})
    assert Index(tmp_path / "index", tagger).folder == moved
    (tmp_path / "others").mkdir()
    with pytest.raises(LesaError, match="others holds no photo"):
        update_index(tmp_path / "index", tmp_path / "others", tagger)
    shutil.copy(moved / "cat-0.jpg", tmp_path / "others" / "else.jpg")
    # An equal name is not enough: different cameras use the same names.
    shutil.copy(moved / "rocket-0.jpg", tmp_path / "others" / "cat-0.jpg")
    with pytest.raises(LesaError, match=r"no photo of it is in .*others: give another index"):
        update_index(tmp_path / "index", tmp_path / "others", tagger)
    assert len(Index(tmp_path / "index", tagger)) == 24
    shutil.copy2(moved / "coffee-0.jpg", tmp_path / "others" / "coffee-0.jpg")
    assert update_index(tmp_path / "index", tmp_path / "others", tagger) == Changes(1, 1, 22, 1, {})


def test_an_index_of_another_bundle_is_refused(collection: Path, index: Index) -> None:
    before, other = contents(collection / "index"), Tagger(collection / "other.lesa")
    with pytest.raises(LesaError, match=r"made with another bundle \(.*small\.lesa\) than .*other\.lesa"):
        Index(collection / "index", other)
    with pytest.raises(LesaError, match="made with another bundle"):
        update_index(collection / "index", collection / "photos", other)
    assert contents(collection / "index") == before


def test_what_is_no_index_or_a_damaged_one_is_refused(photos: Path, tmp_path: Path, tagger: Tagger) -> None:
    with pytest.raises(LesaError, match="is not an index"):
        Index(photos, tagger)
    with pytest.raises(LesaError, match="is not an index but holds something else"):
        update_index(photos, photos, tagger)
    path = tmp_path / "index"
    update_index(path, photos, tagger)
    whole = contents(path)
    for name in ("codes-00000.i8", "photos-00000.jsonl"):
        (path / name).write_bytes(whole[name][:-1])
        for attempt in (lambda: Index(path, tagger), lambda: update_index(path, photos, tagger)):
            with pytest.raises(LesaError, match=f"{name} has .* bytes, expected"):
                attempt()
        (path / name).write_bytes(whole[name])
    (path / "photos-00000.jsonl").write_bytes(whole["photos-00000.jsonl"].replace(b'"photo"', b'"Photo"', 1))
    with pytest.raises(LesaError, match=r"photos-00000\.jsonl:1 is not a line of an index"):
        Index(path, tagger)


def test_a_second_writer_is_noticed(photos: Path, tmp_path: Path, tagger: Tagger, small_blocks: None) -> None:
    def disturb(done: int, total: int) -> None:
        if done == 7:
            update_index(tmp_path / "index", photos, tagger)

    with pytest.raises(LesaError, match="let one `lesa index` write it at a time"):
        update_index(tmp_path / "index", photos, tagger, disturb)
    assert len(Index(tmp_path / "index", tagger)) == 24


# With a vector index


def test_a_vector_index_finds_the_same_photos_with_the_same_scores(
    collection: Path, tmp_path: Path, tagger: Tagger
) -> None:
    path = tmp_path / "index"
    update_index(path, collection / "photos", tagger)
    assert update_neighbours(path, tagger)
    near, exact = Index(path, tagger), Index(path, tagger, exact=True)
    assert (near.compares_all, exact.compares_all) == (False, True)
    for word in WORDS:
        assert near.find(word, top=5) == exact.find(word, top=5)
    photo = collection / "photos" / "cat-3.jpg"
    assert near.like(photo, top=5) == exact.like(photo, top=5)


def made_records(photos: int, random: np.random.Generator) -> np.ndarray:
    """Records of codes around a few hundred centres, like codes of real photos."""
    records = np.zeros(photos, record_type(2, 48))
    centres = random.standard_normal((300, 48))
    codes_BME = centres[random.integers(300, size=(photos, 2))] + 0.3 * random.standard_normal((photos, 2, 48))
    records["codes"] = np.rint(30 * codes_BME).clip(-127, 127)
    records["scales"] = 1 / 30
    return records


def test_a_vector_index_finds_nearly_all_that_are_near_without_looking_at_most(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    records = made_records(20_000, random)
    build_neighbours(records, tmp_path / "x.faiss")
    opened = Neighbours(tmp_path / "x.faiss", 2)
    assert len(opened) == 20_000
    codes_BME = records["codes"].astype(np.float64) / 30
    recalls = []
    for _ in range(20):
        query_E = codes_BME[random.integers(20_000), 0] + 0.3 * random.standard_normal(48)
        best = np.argsort(-(codes_BME @ query_E).max(axis=1))[:10]
        rows = opened.near(query_E[None].astype(np.float32), 10)
        assert len(rows) <= 2000
        assert (np.diff(rows) > 0).all()
        recalls.append(np.isin(best, rows).mean())
    assert np.mean(recalls) > 0.95


def test_a_vector_index_agrees_with_what_was_added_changed_and_removed(
    photos: Path, tmp_path: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Codes of two photos are outdated and two photos are new, compared with 22 that the vector index finds.
    monkeypatch.setattr(indexing, "STALE", 0.2)
    path = tmp_path / "index"
    update_index(path, photos, tagger)
    update_neighbours(path, tagger)
    built = (path / "neighbours-00000.faiss").read_bytes()
    assert not update_neighbours(path, tagger)
    (photos / "coffee-0.jpg").unlink()
    shutil.copy(photos / "rocket-0.jpg", photos / "cat-0.jpg")
    shutil.copy(photos / "rocket-1.jpg", photos / "new.jpg")
    update_index(path, photos, tagger)
    assert not update_neighbours(path, tagger)
    assert (path / "neighbours-00000.faiss").read_bytes() == built
    for index in (Index(path, tagger), Index(path, tagger, exact=True)):
        scores = scores_of(index, "sky")
        assert scores.keys() == set(list_photos(photos))
        assert [scores["cat-0.jpg"], scores["new.jpg"]] == pytest.approx(
            [scores["rocket-0.jpg"], scores["rocket-1.jpg"]]
        )
    shutil.copy(photos / "rocket-2.jpg", photos / "newer.jpg")
    update_index(path, photos, tagger)
    assert update_neighbours(path, tagger)
    assert (
        len(Neighbours(path / "neighbours-00001.faiss", tagger.bundle.manifest.attentions)) == len(scores_of(index)) + 1
    )
    assert not update_neighbours(path, tagger)
    assert Index(path, tagger).find("sky", top=5) == Index(path, tagger, exact=True).find("sky", top=5)


@pytest.mark.parametrize("left", [0, 1])
def test_a_vector_index_finds_what_lies_behind_removed_photos(
    photos: Path, tmp_path: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    path, gone = tmp_path / "index", Path(shutil.copy(photos / "cat-0.jpg", tmp_path / "given.jpg"))
    copies = [photos / "cat-0.jpg", *(Path(shutil.copy(gone, photos / f"copy-{n:02d}.jpg")) for n in range(20))]
    update_index(path, photos, tagger)
    update_neighbours(path, tagger)
    for copy in copies[left:]:
        copy.unlink()
    shutil.copy(photos / "rocket-1.jpg", photos / "new.jpg")
    update_index(path, photos, tagger)
    # For three wanted photos, fewer codes are fetched than the copies have.
    monkeypatch.setattr(neighbours, "CODES_PER_HIT", 3)
    near, exact = Index(path, tagger), Index(path, tagger, exact=True)
    assert near.like(gone, top=3) == exact.like(gone, top=3)
    assert len(near.like(gone, top=3)) == 3
    for word in WORDS:
        assert len(near.find(word, top=3)) == 3
    # There are enough removed photos to rebuild it without them.
    assert update_neighbours(path, tagger)
    assert len(Neighbours(path / "neighbours-00001.faiss", tagger.bundle.manifest.attentions)) == 24 + left
    assert not update_neighbours(path, tagger)


def test_a_vector_index_of_codes_that_were_written_anew_is_built_again(
    photos: Path, collection: Path, tmp_path: Path, tagger: Tagger
) -> None:
    path = tmp_path / "index"
    update_index(path, photos, tagger)
    assert not wants_neighbours(path)
    update_neighbours(path, tagger)
    for name in list_photos(photos)[:13]:
        (photos / name).unlink()
    update_index(path, photos, tagger)
    assert not list(path.glob("*.faiss"))
    assert len(Index(path, tagger).find("moon", top=100)) == 11
    run(index_command, photos, "--bundle", collection / "small.lesa", "-o", path)
    assert [file.name for file in path.glob("*.faiss")] == ["neighbours-00001.faiss"]
    assert not Index(path, tagger).compares_all


def test_a_damaged_vector_index_is_named(photos: Path, tmp_path: Path, tagger: Tagger) -> None:
    path = tmp_path / "index"
    update_index(path, photos, tagger)
    (path / "neighbours-00000.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(LesaError, match=r"neighbours-00000\.faiss is damaged: delete it"):
        Index(path, tagger)


# Its benchmark


BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "search.py"


def benchmark(index: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARK, index, "--queries", "3", *more]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_the_benchmark_compares_by_words_and_by_photos(photos: Path, tmp_path: Path, tagger: Tagger) -> None:
    path = tmp_path / "index"
    update_index(path, photos, tagger)
    # The files look as after an interrupted commit.
    for name in ("codes-00000.i8", "photos-00000.jsonl"):
        with (path / name).open("ab") as file:
            file.write(b'{"photo": "cut')
    done = benchmark(path, "--photos", "40")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("40 photos x ")
    assert re.findall(r"^\| (by .*?) \|.* (\S+) \(least", done.stdout, re.MULTILINE) == [
        ("by words", "1.000"),
        ("by a photo", "1.000"),
    ]
    shutil.rmtree(photos)
    done = benchmark(path)
    assert done.returncode == 1
    assert f"no photo of {path} is in {photos} any more" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("photos", "most", "expected"), [(24, 3, "0 8 16"), (5, 3, "0 1 2"), (2, 3, "0 1"), (0, 3, "")]
)
def test_the_benchmark_asks_with_photos_of_all_the_index(photos: int, most: int, expected: str) -> None:
    spaced = runpy.run_path(str(BENCHMARK))["spaced"]
    assert spaced([str(n) for n in range(photos)], most) == expected.split()


# On the command line


def run(command: click.Command, *arguments: object) -> None:
    command.main([str(each) for each in arguments], standalone_mode=False)


def test_the_commands_index_and_search(
    photos: Path, collection: Path, tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "index"
    (photos / "broken.jpg").write_bytes(b"no photo")
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes((photos / "cat-0.jpg").read_bytes())
    run(index_command, photos, "--bundle", collection / "small.lesa", "-o", path)
    printed = capsys.readouterr()
    assert printed.out == f"{path}: 25 new, 0 changed, 0 removed, 0 unchanged, 1 failed\n"
    assert f"lesa: {photos / 'broken.jpg'} is not a photo that can be read\n" in printed.err
    run(search_command, path, "red car", "--top", 3, "--format", "jsonl")
    hits = Index(path, tagger).find("red car", top=3)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"photo": str(photos / hit.photo), "score": round(hit.score, 4), "box": [*hit.box], "size": [120, 80]}
        for hit in hits
    ]
    run(search_command, path, "--like", photos / "cat-0.jpg", "--top", 2)
    table = capsys.readouterr().out
    assert "cat-0.jpg" in table
    assert "caf\\udce9.jpg" in table
    assert "(25 photos)" in table
    for wrong in ([], ["moon", "--like", photos / "cat-0.jpg"]):
        with pytest.raises(LesaError, match="and not both"):
            run(search_command, path, *wrong)


def test_the_commands_build_a_vector_index_and_draw_a_sheet(
    photos: Path, collection: Path, tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]
) -> None:
    path, sheet = tmp_path / "index", tmp_path / "sheet.png"
    run(index_command, photos, "--bundle", collection / "small.lesa", "-o", path, "--ann")
    assert not Index(path, tagger).compares_all
    capsys.readouterr()
    (photos / Index(path, tagger).find("cat")[1].photo).write_bytes(b"damaged since")
    run(search_command, path, "cat", "--top", 7, "--format", "jsonl", "--sheet", sheet)
    near = capsys.readouterr().out
    run(search_command, path, "cat", "--top", 7, "--format", "jsonl", "--exact")
    assert capsys.readouterr().out == near
    with Image.open(sheet) as picture:
        colours = {colour for _, colour in picture.getcolors(maxcolors=1 << 24)}
        assert picture.width == 2 * 28 + 5 * 240 + 4 * 18
        assert FRAME in colours
    # Both checks come before the index is read: it does not exist.
    with pytest.raises(LesaError, match=r"sheet\.txt is not the name of a picture"):
        run(search_command, tmp_path / "none", "cat", "--sheet", tmp_path / "sheet.txt")
    before = contents(photos)
    for taken in (photos / "cat-0.jpg", sheet):
        with pytest.raises(LesaError, match=f"{taken.name} exists already: give the sheet another name"):
            run(search_command, tmp_path / "none", "cat", "--sheet", taken)
    assert contents(photos) == before


def test_without_faiss_every_photo_is_compared_and_large_indexes_get_a_hint(
    photos: Path,
    collection: Path,
    tmp_path: Path,
    tagger: Tagger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "index"
    run(index_command, photos, "--bundle", collection / "small.lesa", "-o", path, "--ann")
    # As if Faiss were not installed.
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert Index(path, tagger).compares_all
    capsys.readouterr()
    run(index_command, photos, "--bundle", collection / "small.lesa", "-o", path)
    assert "pip install 'lesa-zsl[ann]'" in capsys.readouterr().err
    with pytest.raises(LesaError, match=r"--ann needs Faiss: pip install 'lesa-zsl\[ann\]'"):
        run(index_command, photos, "--bundle", collection / "small.lesa", "-o", path, "--ann")


def test_a_large_index_gets_a_vector_index_by_itself(
    photos: Path, collection: Path, tmp_path: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(index_command, photos, "--bundle", collection / "small.lesa", "-o", tmp_path / "index")
    assert Index(tmp_path / "index", tagger).compares_all
    monkeypatch.setattr(indexing, "WORTH_FROM", 24)
    run(index_command, photos, "--bundle", collection / "small.lesa", "-o", tmp_path / "index")
    assert not Index(tmp_path / "index", tagger).compares_all


def test_a_bundle_that_moved_is_named(
    photos: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(collection / "small.lesa", tmp_path / "a.lesa")
    update_index(tmp_path / "index", photos, Tagger(tmp_path / "a.lesa"))
    (tmp_path / "a.lesa").rename(tmp_path / "b.lesa")
    with pytest.raises(LesaError, match=r"a\.lesa does not exist"):
        run(search_command, tmp_path / "index", "cat")
    run(search_command, tmp_path / "index", "cat", "--bundle", tmp_path / "b.lesa")
    assert "cat" in capsys.readouterr().out


LIGHT = """
import sys
from lesa.cli.index import index
from lesa.cli.search import search
try: {}.main(sys.argv[1:], prog_name="lesa")
except SystemExit as done: code = done.code
sys.stderr.write(" ".join(sorted({} & set(sys.modules))))
sys.exit(code)
"""
LEARNING = {"torch", "transformers", "scipy", "pydantic", "onnx", "matplotlib", "sentence_transformers", "lesa.learn"}


def test_searching_never_imports_pytorch(collection: Path, index: Index) -> None:
    command = [collection / "index", "Paris", "--format", "jsonl"]
    program = [sys.executable, "-c", LIGHT.format("search", LEARNING | {"onnxruntime", "faiss"}), *command]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 10


@pytest.mark.parametrize("command", ["index", "search"])
def test_help_imports_nothing_that_takes_time(command: str) -> None:
    heavy = LEARNING | {"onnxruntime", "faiss", "numpy", "PIL", "safetensors"}
    program = [sys.executable, "-c", LIGHT.format(command, heavy), "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Example:" in done.stdout


# On real photos, with codes of a trained model


@pytest.fixture
def demo_tagger(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tagger:
    """A tagger whose codes are unit vectors times a learned temperature: their length is far from one."""
    monkeypatch.setenv("LESA_CACHE", str(tmp_path / "cache"))
    export_run(make_demo_run(tmp_path, shared, epochs=1), tmp_path / "demo.lesa")
    return Tagger(tmp_path / "demo.lesa")


@pytest.mark.shared
def test_eight_bits_rank_real_photos_as_float_codes_do(demo_tagger: Tagger, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "photos"
    changes = update_index(tmp_path / "index", folder, demo_tagger)
    assert not changes.failed
    index, labels = Index(tmp_path / "index", demo_tagger), demo_tagger.labels()
    names = list_photos(folder)
    by_photo_N = [codes for _, codes in demo_tagger.stream(folder / name for name in names)]
    exact = [{tag.label: tag for tag in demo_tagger.rank(codes, labels, top=None)} for codes in by_photo_N]
    agreement, overlap, same_place = [], [], []
    for word in labels.names[::5]:
        hits = index.find(word, top=len(names))
        float_N = np.array([tags[word].score for tags in exact])
        found_N = {hit.photo: hit for hit in hits}
        agreement.append(spearmanr(float_N, [found_N[name].score for name in names]).statistic)
        best = {names[n] for n in np.argsort(-float_N)[:20]}
        overlap.append(len(best & {hit.photo for hit in hits[:20]}) / 20)
        same_place.append(np.mean([found_N[name].box == attended(demo_tagger, folder / name, word) for name in names]))
    assert min(agreement) > 0.999
    assert np.mean(overlap) > 0.98
    assert np.mean(same_place) > 0.95
