"""A bundle: equal to PyTorch, the same from a zip and a folder, refused where anything was changed."""

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from helpers.small_run import OTHERS, SEEN, UNSEEN, make_collection, make_run
from lesa.bundle import CARD, GRAPH, LABEL_MAP, LABELS, MANIFEST, Bundle, open_bundle, pack_labels, write_bundle
from lesa.cli.export import export
from lesa.errors import LesaError
from lesa.images import list_photos
from lesa.index.search import Index
from lesa.index.update import update_index
from lesa.learn.evaluate import evaluate_run, write_evaluation
from lesa.learn.export import export_run
from lesa.learn.regions.projection import Extractor
from lesa.learn.run import Run, load_model
from lesa.tagger import Tagger

RUNS: dict[str, dict[str, object]] = {
    "published, raw regions": {"recipe": "published", "regions": "raw"},
    "contrastive, projected": {"recipe": "contrastive"},
    "separate W1, projected": {"recipe": "contrastive", "separate": True},
    "soft maximum, front": {"recipe": "contrastive", "front": True},
    "mean pool": {"recipe": "labelem"},
    "synthesised classifiers": {"recipe": "synthesised"},
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    make_collection(folder)
    return folder


@pytest.fixture(scope="module")
def run(collection: Path) -> Run:
    return make_run(collection, collection / "run")


@pytest.fixture(scope="module")
def exported(run: Run, collection: Path) -> Path:
    write_evaluation(evaluate_run(run, k=(1, 2)), run.folder / "evaluation.json")
    export_run(run, collection / "small.lesa", licence="CC0-1.0", words=["moon", "cat", "red car"])
    return collection / "small.lesa"


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_its_scores_on_real_photos_are_pytorchs(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(collection / "cache"))
    run = make_run(collection, tmp_path / "run", **settings)  # type: ignore[arg-type]
    assert export_run(run, tmp_path / "a.lesa") < 1e-4
    photos = [collection / "photos" / name for name in list_photos(collection / "photos")][::3]
    with torch.inference_mode():
        regions_BRD = torch.from_numpy(Extractor.from_store(run.recipe.regions).regions(photos))
        model: Any = load_model(run)
        output = model(regions_BRD, torch.from_numpy(run.vectors_CE))
        points_CE = model.points(F.normalize(torch.from_numpy(run.vectors_CE), dim=1))
        by_region_BRC = model.region_points(model.encode(regions_BRD).regions_BRD) @ points_CE.T
    tagger = Tagger(tmp_path / "a.lesa")
    expected_BC, winner_BC = output.scores_BC.numpy(), output.winner_BC
    names = run.vocabulary.names
    tolerance = 1e-4 * np.ptp(expected_BC)
    for b, photo in enumerate(photos):
        tags = {tag.label: tag for tag in tagger.tag(photo, top=None)}
        scores_C = [tags[name].score for name in names]
        np.testing.assert_allclose(scores_C, expected_BC[b], rtol=0, atol=tolerance)
        for c, name in enumerate(names):
            attention_R = output.attention_BMR[b, winner_BC[b, c]]
            by_region_R = by_region_BRC[b, :, c]
            # The gain of a code is what makes its attention's mean of the regions its dot product.
            gain = output.by_attention_BMC[b, winner_BC[b, c], c] / (attention_R @ by_region_R)
            evidence_HW = (gain * by_region_R).numpy().reshape(tagger.bundle.manifest.grid)
            if run.recipe.model.front:
                # A region behind the front's 2 x 2 window looks half a region to the right and below.
                padded = np.pad(evidence_HW, ((1, 0), (1, 0)), mode="edge")
                evidence_HW = (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]) / 4
            np.testing.assert_allclose(tags[name].evidence, evidence_HW, atol=1e-4 * np.ptp(evidence_HW) + 1e-4)


@pytest.mark.parametrize(
    ("recipe", "attentions", "code_size"), [("synthesised", 1, len(SEEN) + 1), ("best", 3, len(SEEN) + 1 + 16)]
)
def test_a_bundle_carries_the_label_map_and_the_prior_has_no_place_in_the_photo(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, attentions: int, code_size: int
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(collection / "cache"))
    settings = {"prior": 1.0, "unit_labels": True, "ridge": 0.1}
    run = make_run(collection, tmp_path / "run", recipe, unit_codes=True, settings=settings)
    assert export_run(run, tmp_path / "a.lesa", words=OTHERS) < 1e-4
    assert export_run(run, tmp_path / "b.lesa", words=OTHERS, small=True, offline=True) < 1e-2
    tagger = Tagger(tmp_path / "a.lesa")
    manifest = tagger.bundle.manifest
    assert (manifest.vector_size, manifest.code_size, manifest.attentions) == (16, code_size, attentions)
    labels = tagger.labels(["moon", "cat", "red car"])
    for photo in (collection / "photos").iterdir():
        codes = tagger.codes(photo)
        scored = tagger.score(codes, labels)
        by_place_C = scored.scores_C - labels.points_CE[:, len(SEEN)]
        evidence_CR = tagger.evidence(codes, labels)
        if attentions == 1:
            np.testing.assert_allclose(evidence_CR.mean(axis=1), by_place_C, rtol=0.05, atol=1e-4)
        else:
            # The mean region is not what several attentions see: its evidence only has the score's sign.
            assert (np.sign(evidence_CR.mean(axis=1)) == np.sign(by_place_C)).all()
    update_index(tmp_path / "index", collection / "photos", tagger)
    assert len(Index(tmp_path / "index", tagger).find("red car")) == 10


DAMAGED_MAPS: dict[str, Any] = {
    "no map": (lambda parts: None, "label-map.safetensors"),
    "another size": (lambda parts: parts | {"weights": parts["weights"][:, 1:]}, "maps 16 numbers to"),
    "other anchors": (lambda parts: parts | {"anchors": parts["anchors"][:-1]}, "expected"),
    "not finite": (lambda parts: parts | {"prior": parts["prior"] * np.float32("nan")}, "not finite"),
    "no gamma": (lambda parts: {key: part for key, part in parts.items() if key != "gamma"}, "cannot be read"),
    "a vector": (lambda parts: parts | {"weights": parts["weights"][0]}, "weights have 1 dimensions"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGED_MAPS.values(), ids=DAMAGED_MAPS)
def test_a_damaged_label_map_is_refused(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(collection / "cache"))
    export_run(make_run(collection, tmp_path / "run", "best"), tmp_path / "a.lesa")
    bundle = open_bundle(tmp_path / "a.lesa")
    assert bundle.label_map is not None
    changed = change(load(bundle.label_map.to_bytes()))
    members = {GRAPH: bundle.graph, LABELS: pack_labels(bundle.vectors_CE, None), CARD: b"card"}
    further = {} if changed is None else {LABEL_MAP: save(changed)}
    write_bundle(tmp_path / "b.lesa", bundle.manifest, members | further)
    with pytest.raises(LesaError, match=message):
        open_bundle(tmp_path / "b.lesa")


def test_a_small_bundle_scores_alike_and_looks_words_up_in_itself(
    run: Run, exported: Path, collection: Path, tmp_path: Path
) -> None:
    difference = export_run(run, tmp_path / "a.lesa", words=OTHERS, small=True, offline=True)
    assert 1e-7 < difference < 1e-2
    small, whole = Tagger(tmp_path / "a.lesa"), Tagger(exported)
    assert len(small.bundle.graph) < len(whole.bundle.graph)
    photo = collection / "photos" / "cat-0.jpg"
    scores = [[tag.score for tag in sorted(t.tag(photo, top=None), key=lambda t: t.label)] for t in (small, whole)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-2 * np.ptp(scores[1]))
    vectors_CE = small.labels(["red", "car", "red cars"]).points_CE
    assert small.labels(["red", "car", "red cars"]).composed == ("red cars",)
    assert vectors_CE[2] @ (vectors_CE[0] + vectors_CE[1]) == pytest.approx(
        np.linalg.norm(vectors_CE[0] + vectors_CE[1]), abs=1e-5
    )


def test_parents_go_from_the_bundle_into_the_tags(run: Run, collection: Path, tmp_path: Path) -> None:
    (tmp_path / "kinds.txt").write_text("animal|cat\nthing | vessel | cup\n")
    options = ["-o", str(tmp_path / "a.lesa"), "--hierarchy", str(tmp_path / "kinds.txt")]
    export.main([str(run.folder), *options], standalone_mode=False)
    tags = Tagger(tmp_path / "a.lesa").tag(collection / "photos" / "cat-0.jpg", ["Cat", "cup", "sky"])
    assert {tag.label: tag.parents for tag in tags} == {"Cat": ("animal",), "cup": ("thing", "vessel"), "sky": ()}
    assert {str(tag.to_dict().get("parents")) for tag in tags} == {"('animal',)", "('thing', 'vessel')", "None"}
    for line in ("animal||cat", "animal|catt"):
        (tmp_path / "kinds.txt").write_text(f"{line}\n")
        with pytest.raises(LesaError, match="is not a path to a label of the run"):
            export.main([str(run.folder), *options], standalone_mode=False)


def test_it_says_what_it_holds(exported: Path, run: Run) -> None:
    bundle = open_bundle(exported)
    manifest = bundle.manifest
    assert (manifest.unseen, manifest.seen, manifest.words) == (UNSEEN, SEEN, ("moon", "red car"))
    assert (manifest.attentions, manifest.vector_size, manifest.selection) == (3, 16, "log-mean-exp")
    assert manifest.sources == run.recipe.vectors
    np.testing.assert_allclose(bundle.vectors_CE, bundle.space.embed(manifest.names), atol=1e-6)


def test_the_card_has_licence_metrics_with_their_rules_and_limits(exported: Path, run: Run, tmp_path: Path) -> None:
    card = open_bundle(exported).card
    report = json.loads((run.folder / "evaluation.json").read_text())["reports"]["lesa"]["GZSL"]
    assert "CC0-1.0" in card
    assert "rules `lesa`" in card
    assert f"{report['mean_average_precision']:.2f}" in card
    assert "margins, not probabilities" in card
    (run.folder / "evaluation.json").rename(tmp_path / "away.json")
    export_run(run, tmp_path / "b.lesa")
    (tmp_path / "away.json").rename(run.folder / "evaluation.json")
    assert "quality of its tags is unknown" in open_bundle(tmp_path / "b.lesa").card
    assert "unknown: ask who trained them" in open_bundle(tmp_path / "b.lesa").card


def test_a_folder_of_its_members_is_the_same_bundle(exported: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        archive.extractall(tmp_path / "folder")
    assert_same(open_bundle(tmp_path / "folder"), open_bundle(exported))
    (tmp_path / "folder" / GRAPH).unlink()
    with pytest.raises(LesaError, match=r"has no graph\.onnx"):
        open_bundle(tmp_path / "folder")


def test_the_same_content_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "again.lesa", open_bundle(exported).manifest, members_of(exported))
    assert (tmp_path / "again.lesa").read_bytes() == exported.read_bytes()


def assert_same(bundle: Bundle, other: Bundle) -> None:
    assert bundle.fingerprint == other.fingerprint
    assert (bundle.manifest, bundle.graph, bundle.card) == (other.manifest, other.graph, other.card)
    np.testing.assert_array_equal(bundle.vectors_CE, other.vectors_CE)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", [GRAPH, LABELS, CARD])
def test_a_changed_or_missing_member_is_refused(exported: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(exported) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    changed = members | {name: members[name][:-1] + bytes([members[name][-1] ^ 1])}
    with pytest.raises(LesaError, match=f"{name} is not what the manifest says"):
        open_bundle(pack(tmp_path / "changed.lesa", changed))
    del members[name]
    with pytest.raises(LesaError, match=f"it has no {name}"):
        open_bundle(pack(tmp_path / "missing.lesa", members))


Change = Callable[[dict[str, object]], object]
MANIFESTS: dict[str, tuple[Change, str]] = {
    "another version": (lambda fields: fields.update(format="lesa-bundle-9"), "'lesa-bundle-9'.*'lesa-bundle-5'"),
    "the version before": (lambda fields: fields.update(format="lesa-bundle-1"), "export the run again"),
    "another selection": (lambda fields: fields.update(selection="min"), "selection is 'min'"),
    "no grid": (lambda fields: fields.pop("grid"), "damaged"),
    "grid of one number": (lambda fields: fields.update(grid=[7]), "damaged"),
    "an endless grid": (lambda fields: fields.update(grid=[float("inf"), 7]), "damaged"),
    "no such filter": (lambda fields: fields["preprocessing"].update(resample="box"), "damaged"),  # type: ignore[attr-defined]
    "a photo too large": (lambda fields: fields["preprocessing"].update(size=10**9, fit="squash"), "damaged"),  # type: ignore[attr-defined]
    "two colours": (lambda fields: fields["preprocessing"].update(mean=[0.5, 0.5]), "damaged"),  # type: ignore[attr-defined]
    "labels that are not a list": (lambda fields: fields.update(seen="cat"), "damaged"),
    "a label twice": (lambda fields: fields.update(seen=["cat"] * 4), "appears twice"),
    "one label more": (lambda fields: fields.update(words=[*OTHERS]), "holds vectors of shape"),
    "another vector size": (lambda fields: fields.update(vector_size=8), "holds vectors of shape"),
    "a path up": (lambda fields: fields["members"].update({"../graph.onnx": ""}), "plain name"),  # type: ignore[attr-defined]
    "an absolute path": (lambda fields: fields["members"].update({"/etc/passwd": ""}), "plain name"),  # type: ignore[attr-defined]
    "a member left out": (lambda fields: fields["members"].pop(GRAPH), r"lacks graph\.onnx"),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize(("change", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_does_not_fit_is_refused(exported: Path, tmp_path: Path, change: Change, message: str) -> None:
    with zipfile.ZipFile(exported) as archive:
        fields = json.loads(archive.read(MANIFEST))
    change(fields)
    with pytest.raises(LesaError, match=message):
        open_bundle(pack(tmp_path / "a.lesa", {MANIFEST: json.dumps(fields).encode(), **members_of(exported)}))


@pytest.mark.parametrize("name", ["../graph.onnx", "/graph.onnx", "a/graph.onnx", "..", "C:\\graph.onnx", ".hidden"])
def test_a_zip_with_a_path_in_it_is_refused(exported: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(exported) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with pytest.raises(LesaError, match="not a plain name"):
        open_bundle(pack(tmp_path / "a.lesa", members | {name: b""}))


def test_a_compressed_zip_another_file_and_nothing_are_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(LesaError, match="compressed"):
        open_bundle(pack(tmp_path / "a.lesa", members_of(exported), zipfile.ZIP_DEFLATED))
    (tmp_path / "b.lesa").write_bytes(b"no zip")
    with pytest.raises(LesaError, match="not a bundle"):
        open_bundle(tmp_path / "b.lesa")
    with pytest.raises(LesaError, match="does not exist"):
        open_bundle(tmp_path / "c.lesa")


def test_a_pickle_in_place_of_the_labels_is_not_unpickled(exported: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "exploded",)

    members = members_of(exported) | {LABELS: pickle.dumps(Bomb())}
    write_bundle(tmp_path / "a.lesa", open_bundle(exported).manifest, members)
    with pytest.raises(LesaError, match=r"labels\.safetensors cannot be read"):
        open_bundle(tmp_path / "a.lesa")
    assert not (tmp_path / "exploded").exists()


def test_means_and_graphs_of_other_shapes_are_refused(exported: Path, tmp_path: Path, collection: Path) -> None:
    manifest, members = open_bundle(exported).manifest, members_of(exported)
    labels = save({**load(members[LABELS]), "mean.0": np.zeros(7, np.float32)})
    write_bundle(tmp_path / "a.lesa", manifest, members | {LABELS: labels})
    with pytest.raises(LesaError, match="means of shapes"):
        open_bundle(tmp_path / "a.lesa")
    photo = collection / "photos" / "cat-0.jpg"
    for change in {"attentions": 5}, {"grid": (1, 1)}, {"preprocessing": replace(manifest.preprocessing, size=32)}:
        write_bundle(tmp_path / "b.lesa", replace(manifest, **change), members)
        with pytest.raises(LesaError, match="has the shapes"):
            Tagger(tmp_path / "b.lesa").tag(photo)
    write_bundle(tmp_path / "c.lesa", manifest, members | {GRAPH: b"no graph"})
    with pytest.raises(LesaError, match="cannot be opened"):
        Tagger(tmp_path / "c.lesa").tag(photo)


@given(data=st.data())
def test_a_zip_with_any_byte_changed_is_refused_or_the_same(exported: Path, data: st.DataObject) -> None:
    content = bytearray(exported.read_bytes())
    # The zip's own structures: local headers at the start, the directory at the end; contents have hashes.
    places = st.one_of(st.integers(0, 200), st.integers(len(content) - 400, len(content) - 1))
    content[data.draw(places)] ^= data.draw(st.integers(1, 255))
    changed = exported.with_name("changed.lesa")
    changed.write_bytes(content)
    try:
        bundle = open_bundle(changed)
    except LesaError:
        return
    assert_same(bundle, open_bundle(exported))


def test_a_model_without_codes_is_not_exported(collection: Path, tmp_path: Path) -> None:
    run = make_run(collection, tmp_path / "run", recipe="conse")
    with pytest.raises(LesaError, match="'conse' model, whose scores do not follow from codes alone"):
        export_run(run, tmp_path / "a.lesa")


def test_regions_that_are_not_the_runs_are_refused(run: Run, collection: Path, tmp_path: Path) -> None:
    with pytest.raises(LesaError, match="other regions"):
        export_run(run, tmp_path / "a.lesa", regions=collection / "raw")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_opens_without_pytorch_and_without_the_graphs_runtime(exported: Path) -> None:
    code = (
        "import sys; from lesa.tagger import Tagger; Tagger(sys.argv[1]).labels(['cat', 'moon'])\n"
        "sys.exit(str({'torch', 'onnxruntime', 'scipy', 'pydantic', 'lesa.learn'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code, exported], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_export_on_the_command_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lesa.cli.export import export

    (tmp_path / "words.txt").write_text("moon\nred car\n")
    export.main(
        [str(run.folder), "-o", f"{tmp_path}/x.lesa", "--words", f"{tmp_path}/words.txt"], standalone_mode=False
    )
    assert "PyTorch" in capsys.readouterr().out
    assert open_bundle(tmp_path / "x.lesa").manifest.words == ("moon", "red car")
