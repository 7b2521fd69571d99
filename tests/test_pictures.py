"""`lesa show` on bundles and runs: pictures, boxes and JSON of where each tag comes from; no file is replaced."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.small_run import make_collection, make_run
from lesa.bundle import open_bundle, write_bundle
from lesa.cli.show import show as show_command
from lesa.codes import Codes, peak_box, shifted
from lesa.drawing import CAPTION, MARGIN, THUMBNAIL, fit_inside
from lesa.errors import LesaError
from lesa.files import read_json
from lesa.images import crop_box
from lesa.learn.export import export_run
from lesa.learn.methods import find_method
from lesa.learn.model import CodeModel
from lesa.learn.run import load_model, open_run
from lesa.learn.show import run_tagger
from lesa.pictures import Shown, photo_sheet, tag_picture
from lesa.tagger import Tag, Tagger
from test_bundle import members_of

GRID = (4, 4)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    make_collection(folder)
    run = make_run(folder, folder / "run")
    export_run(run, folder / "crop.lesa", words=["moon"])
    about = open_bundle(folder / "crop.lesa").manifest
    squash = replace(about, preprocessing=replace(about.preprocessing, fit="squash"))
    write_bundle(folder / "squash.lesa", squash, members_of(folder / "crop.lesa"))
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def show(*arguments: object) -> None:
    show_command.main([str(each) for each in arguments], standalone_mode=False)


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(320, 160), (160, 320)])
@pytest.mark.parametrize("region", [(0, 0), (1, 2), (3, 3)])
def test_colour_and_box_lie_where_the_region_is(
    collection: Path, fit: str, size: tuple[int, int], region: tuple[int, int]
) -> None:
    manifest = Tagger(collection / f"{fit}.lesa").bundle.manifest
    crop, evidence = crop_box(size, manifest.preprocessing), np.full(GRID, -1, np.float32)
    evidence[region] = 5
    tag = Tag("cat", 1.0, True, evidence, peak_box(evidence.clip(min=0), crop))
    photo = Image.new("RGB", size, (128, 128, 128))
    picture = tag_picture(Shown(photo, size, [tag], crop, 5.0), tag, size)
    assert picture.size == (max(size[0], 168), size[1] + CAPTION)
    photo_HW3 = np.asarray(picture, float)[: size[1], : size[0]]
    # In the middle of the region the full colour, the yellow end: least blue beside red.
    warm_HW = photo_HW3[..., 0] - photo_HW3[..., 2]
    wide, high = (crop[2] - crop[0]) / 4, (crop[3] - crop[1]) / 4
    box = (crop[0] + region[1] * wide, crop[1] + region[0] * high)
    np.testing.assert_allclose(tag.box, (*box, box[0] + wide, box[1] + high), atol=1)
    y, x = np.unravel_index(warm_HW.argmax(), warm_HW.shape)
    assert box[0] <= x <= box[0] + wide
    assert box[1] <= y <= box[1] + high
    frame = photo_HW3[round(box[1] + high / 2), min(round(box[0]), size[0] - 1)]
    assert frame.min() > 250


def test_weak_evidence_does_not_look_strong() -> None:
    def colour(found: float, full: float) -> float:
        tag = Tag("cat", 1.0, True, np.full(GRID, found, np.float32), (0, 0, 80, 80))
        shown = Shown(Image.new("RGB", (80, 80), (128, 128, 128)), (80, 80), [tag], (0, 0, 80, 80), full)
        return float(np.ptp(np.asarray(tag_picture(shown, tag, (80, 80)), float)[40, 40]))

    assert colour(5, 5) > 2 * colour(0.5, 5)
    assert colour(-1, 5) == colour(0, 5) == colour(0, 0) == 0


def test_a_photo_gives_pictures_and_json_that_agree_with_the_tagger(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = collection / "photos" / "cat-0.jpg"
    show(collection / "crop.lesa", photo, collection / "broken.jpg", "--top", 2, "-o", tmp_path, "--sheet")
    assert "broken.jpg is not a photo" in capsys.readouterr().err
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert files == {"cat-0.png", "cat-0.json", "cat-0/1.png", "cat-0/2.png", "sheet.png"}
    about, tags = read_json(tmp_path / "cat-0.json"), Tagger(collection / "crop.lesa").tag(photo, top=2)
    assert (about["photo"], about["size"], about["crop"]) == (str(photo), [120, 80], [20, 0, 100, 80])
    for entry, tag in zip(about["tags"], tags, strict=True):
        assert (entry["label"], entry["score"], tuple(entry["box"])) == (tag.label, round(tag.score, 4), tag.box)
        np.testing.assert_allclose(entry["evidence"], tag.evidence, atol=1e-4)
        assert about["grid"] == list(tag.evidence.shape)
        assert about["full_colour"] >= tag.evidence.max() - 1e-4 * abs(tag.evidence).max()


def test_a_photo_on_its_side_gives_the_upright_photos_pictures(collection: Path, tmp_path: Path) -> None:
    with Image.open(collection / "photos" / "cat-0.jpg") as image:
        image.save(tmp_path / "upright.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    show(collection / "crop.lesa", tmp_path / "upright.png", tmp_path / "turned.png", "-o", tmp_path / "shown")
    for name in "{}.png", "{}/1.png":
        pictures = [Image.open(tmp_path / "shown" / name.format(each)) for each in ("upright", "turned")]
        assert pictures[0] == pictures[1]


def test_nothing_is_replaced(collection: Path, tmp_path: Path) -> None:
    photo = collection / "photos" / "cat-0.jpg"
    command = (collection / "crop.lesa", photo, "-o", tmp_path)
    (tmp_path / "cat-0.json").write_text("my notes")
    with pytest.raises(LesaError, match="none of the photos could be shown"):
        show(*command)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["my notes"]
    (tmp_path / "sheet.png").write_text("mine")
    with pytest.raises(LesaError, match=r"sheet\.png exists already"):
        show(*command, "--sheet")


def test_photos_of_one_name_get_numbers(collection: Path, tmp_path: Path) -> None:
    for folder in "a", "b":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sheet.jpg").write_bytes((collection / "photos" / "cat-0.jpg").read_bytes())
    show(collection / "crop.lesa", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "shown", "--sheet")
    names = {path.name for path in (tmp_path / "shown").glob("*.png")}
    assert names == {"sheet-2.png", "sheet-3.png", "sheet.png"}


def test_a_large_photo_gives_pictures_of_a_screen(collection: Path) -> None:
    tagger = Tagger(collection / "crop.lesa")
    codes = tagger.codes(collection / "photos" / "cat-0.jpg")
    tag = tagger.rank(Codes(codes.codes_ME, codes.attention_MR, codes.regions_RE, (3000, 2000)), tagger.labels())[0]
    shown = Shown(Image.new("RGB", (1280, 853)), (3000, 2000), [tag], (500, 0, 2500, 2000), 1.0)
    assert tag_picture(shown, tag, (600, 600)).width == 600


def shown_photo(photo: Image.Image, names: list[str], crop: tuple[float, float, float, float] | None = None) -> Shown:
    tags = [Tag(name, 1.25, True, np.eye(4, dtype=np.float32), (0, 0, 1, 1)) for name in names]
    return Shown(photo, photo.size, tags, crop or (0, 0, *photo.size), 1.0)


@pytest.mark.parametrize("size", [(384, 256), (256, 384), (1200, 100), (100, 1200), (7, 5), (1, 1)])
@pytest.mark.parametrize("tags", [1, 6])
def test_sheets_of_wide_tall_and_tiny_photos_stay_within_measure(size: tuple[int, int], tags: int) -> None:
    picture = photo_sheet(shown_photo(Image.new("RGB", size, (0, 90, 0)), ["dog"] * tags))
    assert 200 < picture.width < 2700
    assert 100 < picture.height < 900


def test_a_sheet_fades_the_photo_outside_the_crop_and_says_so() -> None:
    photo = Image.new("RGB", (40, 30), (90, 90, 90))
    whole, cropped = (photo_sheet(shown_photo(photo, ["dog"], crop)) for crop in (None, (5, 0, 35, 30)))
    assert whole.height == cropped.height
    assert whole.width < cropped.width
    assert photo_sheet(shown_photo(photo, ["dog"], (0.0, 1e-9, 40.0, 30.0))) == whole


@pytest.mark.parametrize("name", ["a very long name of a label that ends nowhere " * 3, "собака 犬", "two\nlines", "…"])
def test_any_name_can_be_drawn(name: str) -> None:
    pictures = [photo_sheet(shown_photo(Image.new("RGB", (40, 30)), [each])) for each in (name, name, "dog")]
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.shared
def test_a_sheet_of_a_real_photo_holds_the_photo(shared: Path) -> None:
    path = sorted((shared / "data" / "photos").glob("*.jpg"))[0]
    with Image.open(path) as image:
        photo = image.convert("RGB")
    width, height = fit_inside(photo.size, THUMBNAIL)
    part = photo_sheet(shown_photo(photo, ["dog"])).crop((MARGIN, MARGIN, MARGIN + width, MARGIN + height))
    difference_HW3 = np.asarray(part, int) - np.asarray(photo.resize((width, height)), int)
    assert np.abs(difference_HW3).mean() < 4


# Runs


@pytest.mark.parametrize("recipe", ["contrastive", "published", "labelem"])
def test_a_run_has_the_tags_of_its_bundle(collection: Path, tmp_path: Path, recipe: str) -> None:
    run = make_run(collection, tmp_path / "run", recipe)
    export_run(run, tmp_path / "a.lesa")
    photo = collection / "photos" / "cat-0.jpg"
    for labels in (None, ["moon", "cat"]):
        tags, expected = (tagger.tag(photo, labels) for tagger in (run_tagger(run), Tagger(tmp_path / "a.lesa")))
        for one, other in zip(tags, expected, strict=True):
            assert (one.label, one.seen, one.box) == (other.label, other.seen, other.box)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            np.testing.assert_allclose(one.evidence, other.evidence, atol=1e-4)


def test_a_label_of_a_cluster_has_the_evidence_of_its_own_attention_half_a_region_below_and_right(
    collection: Path, tmp_path: Path
) -> None:
    run = make_run(collection, tmp_path / "run", "attention-per-cluster")
    assert run.recipe.model.front
    model, tagger = load_model(run), run_tagger(run)
    assert isinstance(model, CodeModel)
    codes = tagger.codes(collection / "photos" / "cat-0.jpg")
    tags = {tag.label: tag for tag in tagger.rank(codes, tagger.labels(), top=None)}
    attention, regions = torch.from_numpy(codes.attention_MR), torch.from_numpy(codes.regions_RE)
    clusters = set()
    for name, vector_E in zip(run.vocabulary.names, torch.from_numpy(run.vectors_CE), strict=True):
        vector_E = vector_E / vector_E.norm()
        m = int((model.get_buffer("centroids_ME") - vector_E).square().sum(dim=1).argmin())
        by_region_R = regions @ vector_E
        assert tags[name].score == pytest.approx(float(attention[m] @ by_region_R), abs=1e-4)
        map_HW = by_region_R.numpy().reshape(tagger.bundle.manifest.grid)
        np.testing.assert_allclose(tags[name].evidence, shifted(map_HW, 0.5), atol=1e-4)
        clusters.add(m)
    assert len(clusters) > 1


def test_a_run_is_shown_as_a_bundle_is(collection: Path, tmp_path: Path) -> None:
    photo = collection / "photos" / "cat-0.jpg"
    (tmp_path / "words.txt").write_text("moon\ncat\n")
    options = ("--labels", tmp_path / "words.txt", "--vectors", collection / "vectors.txt", "--sheet")
    show(collection / "run", photo, *options, "--regions", collection / "regions", "-o", tmp_path / "run")
    show(collection / "crop.lesa", photo, *options, "-o", tmp_path / "bundle")
    files = [{path.relative_to(out) for path in out.rglob("*.*")} for out in (tmp_path / "run", tmp_path / "bundle")]
    assert files[0] == files[1]
    assert len(files[0]) == 5
    one, other = (read_json(tmp_path / out / "cat-0.json") for out in ("run", "bundle"))
    assert one.keys() == other.keys()
    assert [tag["label"] for tag in one["tags"]] == [tag["label"] for tag in other["tags"]]


def test_a_run_without_codes_or_with_other_regions_is_not_shown(collection: Path, tmp_path: Path) -> None:
    assert not issubclass(find_method("conse"), CodeModel)
    with pytest.raises(LesaError, match="'conse' model, which has no attentions to show"):
        run_tagger(make_run(collection, tmp_path / "run", "conse"))
    with pytest.raises(LesaError, match="holds other regions than the run"):
        run_tagger(open_run(collection / "run"), regions=collection / "raw")


def test_what_is_neither_a_run_nor_a_bundle_is_refused(collection: Path, tmp_path: Path) -> None:
    photo = collection / "photos" / "cat-0.jpg"
    with pytest.raises(LesaError, match="--regions is for a run"):
        show(collection / "crop.lesa", photo, "--regions", "x", "-o", tmp_path)
    with pytest.raises(LesaError, match="bundle missing does not exist"):
        show("missing", photo, "-o", tmp_path)


LIGHT = """
import sys
from lesa.cli.main import cli
try: cli.main(sys.argv[1:], prog_name="lesa")
except SystemExit as done: code = done.code
heavy = {"torch", "transformers", "scipy", "pydantic", "onnx", "matplotlib", "lesa.learn"} & set(sys.modules)
sys.exit(str(heavy) if heavy else code)
"""


def test_a_bundle_is_shown_without_pytorch(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("moon\ncat\nred car\n")
    command = ["show", collection / "crop.lesa", collection / "photos" / "cat-0.jpg", "--top", "1"]
    more = ["--labels", tmp_path / "words.txt", "-o", tmp_path / "shown"]
    program = [sys.executable, "-c", LIGHT, *command, *more]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
    assert done.stdout.strip().endswith("cat-0.png")
    assert read_json(tmp_path / "shown" / "cat-0.json")["tags"][0]["label"] in {"moon", "cat", "red car"}
