"""`lesa calibrate` and the calibrated bundle: from a file of labels to probabilities; a changed bundle is refused."""

import csv
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from helpers.small_run import SEEN, UNSEEN, make_collection, make_run
from lesa.bundle import CALIBRATION, CARD, GRAPH, LABELS, MANIFEST, open_bundle, with_calibration
from lesa.calibration import Calibration
from lesa.cli.tag import tag as tag_command
from lesa.errors import LesaError
from lesa.fit_calibration import fit_calibration, score_photos
from lesa.images import list_photos
from lesa.index.search import Index
from lesa.index.update import update_index
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, Split, Targets, write_dataset
from lesa.learn.export import export_run
from lesa.tagger import Tagger

NAMES = UNSEEN + SEEN
Lesa = Callable[..., int]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    make_collection(folder)
    export_run(make_run(folder, folder / "run"), folder / "small.lesa", words=["moon"])
    rows = [f"{photo},{';'.join(labels)}" for photo, labels in known(folder).items()]
    (folder / "photos" / "labels.csv").write_text("\n".join(["photo,labels", *rows]) + "\n")
    return folder


def known(collection: Path) -> dict[str, list[str]]:
    """Labels of the photos: the model's two best tags, for every fourth photo the next two."""
    tagger, labels = Tagger(collection / "small.lesa"), {}
    for n, photo in enumerate(list_photos(collection / "photos")):
        names = [tag.label for tag in tagger.tag(collection / "photos" / photo)]
        labels[photo] = names[2:4] if n % 4 == 3 else names[:2]
    return labels


@pytest.fixture
def made() -> Calibration:
    labels = {"cat": 0.7, "animal": -1.0}
    return Calibration(0.8, -0.4, -1.0, -0.3, labels, threshold=0.2, report={"photos": 30})


@pytest.fixture
def calibrated(collection: Path, tmp_path: Path, made: Calibration) -> Path:
    with_calibration(collection / "small.lesa", made, tmp_path / "calibrated.lesa")
    return tmp_path / "calibrated.lesa"


@pytest.fixture(scope="module")
def photo(collection: Path) -> Path:
    return collection / "photos" / "cat-0.jpg"


# The bundle


def test_a_calibrated_bundle_is_the_bundle_with_a_calibration(
    collection: Path, calibrated: Path, made: Calibration, tmp_path: Path
) -> None:
    plain, bundle = open_bundle(collection / "small.lesa"), open_bundle(calibrated)
    assert plain.calibration is None
    assert bundle.calibration == made
    assert (bundle.manifest, bundle.graph, bundle.card) == (plain.manifest, plain.graph, plain.card)
    np.testing.assert_array_equal(bundle.vectors_CE, plain.vectors_CE)
    # Codes and scores are the same: both bundles can use the same index.
    assert bundle.fingerprint == plain.fingerprint
    update_index(tmp_path / "index", collection / "photos", Tagger(collection / "small.lesa"))
    assert len(Index(tmp_path / "index", Tagger(calibrated))) == 24
    # Once more, from a folder: the new calibration replaces the earlier one.
    with zipfile.ZipFile(calibrated) as archive:
        archive.extractall(tmp_path / "folder")
    other = Calibration(2.0, 0.0, 0.0, 0.0, {}, 0.5, {})
    with_calibration(tmp_path / "folder", other, tmp_path / "again.lesa")
    assert open_bundle(tmp_path / "again.lesa").calibration == other
    assert open_bundle(tmp_path / "again.lesa").fingerprint == plain.fingerprint
    with pytest.raises(LesaError, match="is a folder"):
        with_calibration(calibrated, other, tmp_path / "folder")


@pytest.mark.parametrize(
    "content",
    [b"{}", b"no JSON", b'"text"', b"[" * 100_000, json.dumps({"format": "lesa-calibration-1"}).encode()],
    ids=["empty", "no JSON", "text", "deep", "incomplete"],
)
def test_a_calibration_that_is_none_is_refused(calibrated: Path, tmp_path: Path, content: bytes) -> None:
    import hashlib

    with zipfile.ZipFile(calibrated) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members[MANIFEST])
    assert set(manifest["members"]) == {GRAPH, LABELS, CARD, CALIBRATION}
    changed = members | {CALIBRATION: content}
    with pytest.raises(LesaError, match=r"calibration\.json is not what the manifest says"):
        open_bundle(pack(tmp_path / "a.lesa", changed))
    manifest["members"][CALIBRATION] = hashlib.sha256(content).hexdigest()
    with pytest.raises(LesaError, match=r"b\.lesa: calibration\.json cannot be read"):
        open_bundle(pack(tmp_path / "b.lesa", changed | {MANIFEST: json.dumps(manifest).encode()}))
    with pytest.raises(LesaError, match=r"has no calibration\.json"):
        open_bundle(pack(tmp_path / "c.lesa", {name: each for name, each in members.items() if name != CALIBRATION}))


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# Tags


def test_probabilities_are_the_maps_of_score_and_level(
    collection: Path, calibrated: Path, photo: Path, made: Calibration
) -> None:
    plain = {tag.label: tag for tag in Tagger(collection / "small.lesa").tag(photo, [*NAMES, "moon", "Cat"], top=None)}
    tags = Tagger(calibrated).tag(photo, [*NAMES, "moon", "Cat"], top=None)
    assert all(tag.probability is None for tag in plain.values())
    scores = np.array([plain[name].score for name in NAMES])
    level = logsumexp(scores) - np.log(len(scores))
    for tag in tags:
        own = made.labels.get(tag.label.lower(), 0.0)
        logit = 0.8 * tag.score - 0.4 * level - 1.0 - 0.3 * tag.seen + own
        assert tag.probability == pytest.approx(expit(logit), rel=1e-5)
        assert (tag.score, tag.seen, tag.box) == (plain[tag.label].score, plain[tag.label].seen, plain[tag.label].box)
    probabilities = [tag.probability for tag in tags if tag.probability is not None]
    assert probabilities == sorted(probabilities, reverse=True)
    limit = probabilities[3]
    chosen = Tagger(calibrated).tag(photo, [*NAMES, "moon", "Cat"], top=None, threshold=limit)
    assert [tag.label for tag in chosen] == [tag.label for tag in tags if (tag.probability or 0) >= limit]


def test_the_formats_hold_probabilities(
    collection: Path, calibrated: Path, photo: Path, made: Calibration, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = Tagger(calibrated).tag(photo, top=None, threshold=made.threshold)

    def printed(*arguments: object) -> str:
        tag_command.main([str(photo), "--bundle", str(calibrated), *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    # Without --top and --threshold the bundle's threshold decides.
    percents = [f"{tag.label} {100 * (tag.probability or 0):.0f} %" for tag in expected]
    assert printed() == f"{photo}  " + "  ".join(percents) + "\n"
    assert len(printed("--top", 4, "--format", "csv").splitlines()) == 5
    tags = json.loads(printed("--format", "jsonl"))["tags"]
    assert [(tag["label"], tag["probability"]) for tag in tags] == [
        (tag.label, round(tag.probability or 0, 4)) for tag in expected
    ]
    rows = list(csv.DictReader(printed("--format", "csv").splitlines()))
    assert [row["probability"] for row in rows] == [f"{tag.probability:.4f}" for tag in expected]
    assert printed("--threshold", 1) == f"{photo}  \n"
    with pytest.raises(LesaError, match=r"threshold is 2: .* is calibrated, so give a probability from 0 to 1"):
        printed("--threshold", 2)


def test_a_file_of_tags_is_of_one_calibration(collection: Path, calibrated: Path, tmp_path: Path, lesa: Lesa) -> None:
    command = ("tag", collection / "photos", "--top", "3", "-o", tmp_path / "a.jsonl", "--bundle")
    assert lesa(*command, collection / "small.lesa") == 0
    assert lesa(*command, calibrated) == 2


# The command


def test_labelled_photos_make_a_calibrated_bundle(
    collection: Path, tmp_path: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "my.lesa"
    bundle.write_bytes((collection / "small.lesa").read_bytes())
    command = ("calibrate", bundle, "--data", collection / "photos" / "labels.csv")
    assert lesa(*command, "--dry-run") == 0
    report = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [bundle]
    assert "24 photos, 4 seen and 3 unseen labels, 2.00 present per photo" in report
    assert "held-out photos of 5-fold cross-validation" in report
    assert "threshold of `lesa tag`: probability 0." in report

    assert lesa(*command) == 0
    fitted = open_bundle(tmp_path / "my-calibrated.lesa").calibration
    assert fitted is not None
    assert f"{fitted.report['after']['all']['ece']:.2%}" in capsys.readouterr().out
    assert fitted.report["after"]["all"]["log_loss"] < fitted.report["before"]["all"]["log_loss"]
    assert bundle.read_bytes() == (collection / "small.lesa").read_bytes()

    assert lesa(*command) == 2
    assert "exists: name another file with -o, or say --force" in capsys.readouterr().err
    assert lesa(*command, "--force", "-o", bundle) == 0
    assert open_bundle(bundle).calibration == fitted


def test_before_is_what_the_bundle_says_already(
    collection: Path, calibrated: Path, tmp_path: Path, lesa: Lesa, made: Calibration
) -> None:
    photos = known(collection)
    files = [collection / "photos" / name for name in photos]
    targets_NC = np.array([[1 if name in labels else -1 for name in NAMES] for labels in photos.values()], np.int8)
    tagger = Tagger(calibrated)
    labelled = score_photos(tagger, files, targets_NC, NAMES, failed=print)
    tags = {tag.label: tag.probability for tag in tagger.tag(files[0], top=None)}
    assert dict(zip(NAMES, expit(labelled.before_NC[0]).tolist(), strict=True)) == pytest.approx(tags)
    assert fit_calibration(labelled, ()).report["measured"].startswith("before: the bundle's own calibration;")


def test_a_prepared_data_set_is_labelled_photos_too(
    collection: Path, tmp_path: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = known(collection)
    targets = Targets.from_present([[NAMES.index(label) for label in labels] for labels in photos.values()], len(NAMES))
    splits = {"test": Split(tuple(photos), targets), "validation": Split(tuple(photos), targets).without([*photos][4:])}
    write_dataset(Dataset("small", Vocabulary(UNSEEN, SEEN), splits, {}), tmp_path / "set")
    command = ("calibrate", collection / "small.lesa", "--dry-run", "--data", tmp_path / "set")
    assert lesa(*command, "--split", "test", "--photos", collection / "photos") == 0
    assert "24 photos, 4 seen and 3 unseen labels, 2.00 present per photo" in capsys.readouterr().out
    assert lesa(*command, "--photos", collection / "photos") == 2
    assert "4 photos with 8 present and 20 absent labels are too few" in capsys.readouterr().err
    assert lesa(*command) == 2
    assert "give the photos' folder" in capsys.readouterr().err


def test_what_rows_say_and_do_not_say(
    collection: Path, tmp_path: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str]
) -> None:
    # In each row two labels are present, all others are absent, and `animal` is not mentioned.
    rows = [
        {"photo": photo, "labels": [label.title() for label in labels], "absent": [*set(NAMES) - {*labels, "animal"}]}
        for photo, labels in known(collection).items()
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"photo": "gone.jpg", "labels": []}])))
    command = ("calibrate", collection / "small.lesa", "--data", tmp_path / "labels.jsonl")
    photos = ("--photos", collection / "photos")
    assert lesa(*command, *photos, "-o", tmp_path / "a.lesa") == 0
    printed = capsys.readouterr()
    assert "gone.jpg does not exist" in printed.err
    fitted = open_bundle(tmp_path / "a.lesa").calibration
    assert fitted is not None
    assert (fitted.report["photos"], fitted.report["present_labels_per_photo"]) == (24, 2.0)
    assert set(fitted.labels) <= set(NAMES)

    (tmp_path / "words.txt").write_text("CAT\ncat\nred car\n")
    assert lesa(*command, *photos, "--dry-run", "--labels", tmp_path / "words.txt") == 2
    assert "is not one of the labels; There are: cat, red car. Name all" in capsys.readouterr().err
    (tmp_path / "words.txt").write_text("\n".join([*NAMES, "red car"]))
    assert lesa(*command, *photos, "--dry-run", "--labels", tmp_path / "words.txt") == 0
    assert "4 seen and 4 unseen labels" in capsys.readouterr().out


def test_calibrating_with_a_file_of_labels_needs_no_pytorch(collection: Path) -> None:
    learning = {"torch", "transformers", "scipy", "pydantic", "lesa.learn"}
    code = (
        "import sys; from lesa.cli.calibrate import calibrate\n"
        "try: calibrate.main(sys.argv[1:])\n"
        f"except SystemExit as done: sys.exit(done.code or str({learning} & set(sys.modules) or ''))"
    )
    command = [str(collection / "small.lesa"), "--data", str(collection / "photos" / "labels.csv"), "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert "threshold of `lesa tag`" in done.stdout
    assert "{" not in done.stderr
