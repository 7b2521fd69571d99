"""A trained run -> a bundle that needs no PyTorch: backbone, projection and `encode` as one checked graph."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lesa.bundle import CARD, GRAPH, LABEL_MAP, LABELS, Bundle, Manifest, pack_labels, read_labels, write_bundle
from lesa.codes import select
from lesa.errors import LesaError, did_you_mean
from lesa.evaluation.report import Report
from lesa.evaluation.tables import markdown_table, report_table
from lesa.files import read_json
from lesa.graph import open_graph
from lesa.images import Preprocessing
from lesa.label_map import LabelMap
from lesa.learn.evaluate import refuse_other_regions
from lesa.learn.methods import KINDS
from lesa.learn.model import CodeModel, Encoded
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.graphs import TOLERANCE, export_onnx, halved, random_pixels
from lesa.learn.regions.projection import Projection, backbone_of, read_projection
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, load_model
from lesa.vectors import unit

SMALL_TOLERANCE = 1e-2
"""How far weights in 16 bits and vectors in 8 may change the scores, as a share of the scores' spread."""
UNKNOWN_LICENCE = "unknown: ask who trained them, also about the data and the backbone"
LIMITS = """\
* Scores are margins, not probabilities: compare labels of one photo, or calibrate on photos like yours
  (`lesa calibrate`; `calibration.json`, if the bundle has one, says on which photos that was done).
* Seen labels tend to score above unseen ones on the same photo, because training photos carried them.
* The model sees the photo at one size: small objects are often missed.
* Labels of other words are guessed from their vectors alone. A word without a visible meaning gets a score, too.
* It inherits what its training photos and its word vectors get wrong, people and places included. It was not made to
  recognise persons or to rate them: do not use it for that."""


class PhotoEncoder(nn.Module):
    """Photos -> codes, attentions, regions in word space: backbone, projection of its store, the model's `encode`."""

    def __init__(self, backbone: nn.Module, projection: Projection | None, model: CodeModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.model = model
        self.mean_D = None if projection is None else nn.Parameter(torch.from_numpy(projection.mean_D))
        self.components = None if projection is None else nn.Parameter(torch.from_numpy(projection.components))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (B, 3, H, W) -> codes (B, M, E), attentions (B, M, R), regions (B, R, E)."""
        return self.outputs(self.encode(pixels))

    def encode(self, pixels: Tensor) -> Encoded:
        """Turn pixels (B, 3, H, W) into codes."""
        regions_BRD = self.backbone(pixels)
        if self.components is not None:
            regions_BRD = (regions_BRD - self.mean_D) @ self.components
        return self.model.encode(regions_BRD)

    def outputs(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes, attentions, and each region alone in word space (B, R, E).

        A code is a positive multiple of its attention's mean of the regions; evidence is computed from that.
        """
        return encoded.codes_BME, encoded.attention_BMR, self.model.region_points(encoded.regions_BRD)


def export_run(
    run: Run,
    out: Path,
    *,
    licence: str | None = None,
    words: Sequence[str] = (),
    regions: Path | str | None = None,
    parents: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    small: bool = False,
    offline: bool = False,
) -> float:
    """Write a run's bundle.

    Args:
        run: the trained run; the weights of its recipe's checkpoint are exported.
        out: the zip to write.
        licence: of the weights, for the model card; unknown if not given.
        words: further words whose vectors the bundle will carry, so that they work without the sources of vectors.
        regions: the store that says how photos become regions, if it is not where the recipe says.
        parents: for a label, the more general names above it, the outermost first.
        small: store weights in 16 bits and label vectors in 8; computation stays in 32 bits.
        offline: look words up in the bundle alone, and compose phrases from its words.

    Returns:
        The greatest difference of the graph's scores from PyTorch's, as a share of the scores' spread: below 1e-4, or
        below 1e-2 if small.

    Raises:
        LesaError: the model's scores do not follow from codes alone, a part is missing, a name with parents is not a
            label, or the graph differs from PyTorch.
    """
    for label, above in parents.items():
        if label not in run.vocabulary.names or not all(above):
            hint = did_you_mean(label, run.vocabulary.names)
            raise LesaError(f"{'|'.join([*above, label])} is not a path to a label of the run; {hint}")
    model = _exportable_model(run)
    backbone, projection = load_backbone_and_projection(run, regions or run.recipe.regions)
    manifest = replace(
        make_manifest(run, model, backbone.preprocessing, backbone.grid, words), parents=dict(parents), composed=offline
    )
    bundle = Bundle(
        path=out,
        manifest=manifest,
        vectors_CE=_vectors(run, manifest.words),
        space=run.space,
        graph=_make_graph(PhotoEncoder(backbone.module, projection, model), backbone),
        card=_model_card(run, out.stem, licence),
        fingerprint="",
        label_map=model.label_map(),
    )
    pixels = random_pixels(backbone.preprocessing, 3)
    expected_BC = _scores_of(backbone, projection, model, pixels, bundle.vectors_CE)
    difference = _check_scores(bundle, pixels, expected_BC, TOLERANCE)
    labels = pack_labels(bundle.vectors_CE, run.space.means_by_source, bits=8 if small else 32)
    further = {LABEL_MAP: bundle.label_map.to_bytes(half=small)} if bundle.label_map else {}
    if small:
        bundle = replace(
            bundle,
            graph=halved(bundle.graph),
            vectors_CE=read_labels(out, manifest, labels)[0],
            label_map=LabelMap.from_bytes(further[LABEL_MAP]) if further else None,
        )
        difference = _check_scores(bundle, pixels, expected_BC, SMALL_TOLERANCE)
    write_bundle(out, manifest, {GRAPH: bundle.graph, LABELS: labels, CARD: bundle.card.encode(), **further})
    return difference


def _exportable_model(run: Run) -> CodeModel:
    """Return the run's model.

    Raises:
        LesaError: its scores do not follow from codes and label vectors alone.
    """
    model = load_model(run)
    if isinstance(model, CodeModel) and model.exportable:
        return model
    kinds = " or ".join(name for name, method in KINDS.items() if method.exportable)
    raise LesaError(
        f"{run.folder} holds a {run.recipe.model.kind!r} model, whose scores do not follow from codes alone: export a "
        f"run with model.kind {kinds}"
    )


def load_backbone_and_projection(run: Run, folder: Path | str) -> tuple[Backbone, Projection | None]:
    """Load the backbone, with the preprocessing of the run's store, and the projection that follows it.

    Raises:
        LesaError: the store is not the run's, or its backbone has other weights now.
    """
    refuse_other_regions(run, RegionStore.open(folder))
    return backbone_of(folder), read_projection(folder)


def make_manifest(
    run: Run, model: CodeModel, preprocessing: Preprocessing, grid: tuple[int, int], words: Sequence[str] = ()
) -> Manifest:
    """Return a run's manifest: how photos become pixels, the grid of their regions, and what labels there are."""
    known = set(run.vocabulary.names)
    return Manifest(
        preprocessing=preprocessing,
        grid=grid,
        attentions=model.attentions,
        vector_size=model.config.vector_size,
        code_size=model.code_size,
        selection=model.config.selection,
        unseen=run.vocabulary.unseen,
        seen=run.vocabulary.seen,
        words=tuple(word for word in dict.fromkeys(words) if word not in known),
        sources=run.space.sources,
        region_shift=model.region_shift,
    )


def _vectors(run: Run, words: Sequence[str]) -> NDArray[np.float32]:
    """Return the unit vectors of the run's labels and of the further words."""
    vectors_CE = unit(run.vectors_CE, run.vocabulary.names)
    return np.concatenate([vectors_CE, run.space.embed(words)]) if words else vectors_CE


def _make_graph(module: PhotoEncoder, backbone: Backbone) -> bytes:
    """Return the module as an ONNX graph for batches of any size.

    Raises:
        LesaError: PyTorch cannot export it.
    """
    with TemporaryDirectory() as folder:
        try:
            export_onnx(module, backbone.preprocessing, ["codes", "attention", "regions"], Path(folder) / GRAPH)
        except LesaError as error:
            raise LesaError(f"the run's model on {backbone.spec} cannot be exported as a graph: {error}") from None
        return (Path(folder) / GRAPH).read_bytes()


def _scores_of(
    backbone: Backbone,
    projection: Projection | None,
    model: CodeModel,
    pixels: NDArray[np.float32],
    vectors_CE: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return PyTorch's scores of labels on pixels (B, 3, H, W): `B, C`."""
    with torch.inference_mode():
        regions_BRD = backbone.module(torch.from_numpy(pixels))
        if projection is not None:
            regions_BRD = torch.from_numpy(projection.apply(regions_BRD.numpy()))
        scores_BC: NDArray[np.float32] = model(regions_BRD, torch.from_numpy(vectors_CE)).scores_BC.numpy()
    return scores_BC


def _check_scores(
    bundle: Bundle, pixels: NDArray[np.float32], expected_BC: NDArray[np.float32], tolerance: float
) -> float:
    """Return the greatest difference of the bundle's scores from PyTorch's, as a share of their spread.

    Raises:
        LesaError: it is more than the tolerance.
    """
    codes_BME, _, _ = open_graph(bundle)(pixels)
    points_CE = bundle.points(bundle.vectors_CE)
    scores_BC = np.stack([select(codes @ points_CE.T, bundle.manifest.selection) for codes in codes_BME])
    difference = float(np.abs(scores_BC - expected_BC).max() / np.ptp(expected_BC))
    # Not `>`: NaN must not pass.
    if not difference < tolerance:
        raise LesaError(
            f"the bundle's scores differ from PyTorch's by {difference:.1e} of their spread, more than "
            f"{tolerance:.0e}: use another version of torch or onnxruntime"
        )
    return difference


def _model_card(run: Run, name: str, licence: str | None) -> str:
    """Return the model card: description, data, licence, metrics with their rules, limits."""
    backbone = run.regions["backbone"]["spec"].rpartition("/")[2]
    rows, columns = run.regions["grid"]
    recipe = run.recipe
    sources = ", ".join(Path(source).name for source in recipe.vectors)
    return f"""# {name}

A tagger of photos made with lesa (`lesa export`): a photo becomes codes in word space, a label's score is the best dot
product of its vector with them.

| | |
|---|---|
| training data | {run.regions.get("data_set", "unknown")} |
| labels | {len(run.vocabulary.seen)} seen, {len(run.vocabulary.unseen)} unseen; any other word that has a vector |
| label vectors | {sources}{", centred" if recipe.centred else ""} |
| backbone | {backbone}, {rows} x {columns} regions of {run.regions["size"]} features |
| model | {recipe.model.kind}, loss {recipe.loss.kind}, seed {recipe.seed}, weights: {recipe.checkpoint} |
| licence of the weights | {licence or UNKNOWN_LICENCE} |

## Metrics

{_metrics(run)}

## Limits

{LIMITS}
"""


def _metrics(run: Run) -> str:
    """Return the tables of the run's evaluation, if it used the exported weights."""
    path = run.folder / "evaluation.json"
    evaluated: dict[str, Any] = read_json(path) if path.exists() else {}
    if evaluated.get("checkpoint") != run.recipe.checkpoint:
        return "Not evaluated: the quality of its tags is unknown."
    lines = [f"Percent, on the {evaluated['split']} photos of {evaluated['data_set']}."]
    for rules, tasks in evaluated["reports"].items():
        reports = {task: Report.from_dict(values) for task, values in tasks.items()}
        lines += ["", markdown_table(*report_table(f"rules `{rules}`", reports))]
    return "\n".join(lines)
