"""`lesa show` on a bundle: pictures, boxes and JSON of where each tag comes from; each in its place, nothing lost."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.small_run import make_collection, make_run
from lesa.bundle import open_bundle, write_bundle
from lesa.cli.show import show as show_command
from lesa.codes import Codes, peak_box
from lesa.drawing import CAPTION
from lesa.errors import LesaError
from lesa.files import read_json
from lesa.images import crop_box
from lesa.learn.export import export_run
from lesa.pictures import Shown, tag_picture
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
    about = Tagger(collection / f"{fit}.lesa").bundle.manifest
    seen, found = crop_box(size, about.preprocessing), np.full(GRID, -1, np.float32)
    found[region] = 5
    tag = Tag("cat", 1.0, True, found, peak_box(found.clip(min=0), seen))
    photo = Image.new("RGB", size, (128, 128, 128))
    picture = tag_picture(Shown(photo, size, [tag], seen, 5.0), tag, size)
    assert picture.size == (max(size[0], 168), size[1] + CAPTION)
    photo_HW3 = np.asarray(picture, float)[: size[1], : size[0]]
    # In the middle of the region the full colour, the yellow end: least blue beside red.
    warm_HW = photo_HW3[..., 0] - photo_HW3[..., 2]
    wide, high = (seen[2] - seen[0]) / 4, (seen[3] - seen[1]) / 4
    box = (seen[0] + region[1] * wide, seen[1] + region[0] * high)
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
    assert (about["photo"], about["size"], about["covers"]) == (str(photo), [120, 80], [20, 0, 100, 80])
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


def test_options_of_a_run_and_of_a_bundle_are_not_mixed(collection: Path, tmp_path: Path) -> None:
    photo = collection / "photos" / "cat-0.jpg"
    with pytest.raises(LesaError, match="is a run: --labels, --vectors and --sheet are for a bundle"):
        show(collection / "run", photo, "--sheet", "-o", tmp_path)
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
