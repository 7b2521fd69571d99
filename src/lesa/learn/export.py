"""A trained run -> a bundle that needs no PyTorch: backbone, projection and model as one checked graph; model card."""

import copy
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

from lesa.bundle import CARD, GRAPH, LABELS, Bundle, Manifest, pack_labels, read_labels, write_bundle
from lesa.codes import select
from lesa.errors import LesaError, did_you_mean
from lesa.evaluation.rules import Report
from lesa.evaluation.tables import markdown_table, report_table
from lesa.files import read_json
from lesa.graph import open_graph
from lesa.learn.evaluate import refuse_other_regions
from lesa.learn.model import Kind, Model
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.graphs import TOLERANCE, export_onnx, halved, random_pixels
from lesa.learn.regions.projection import Projection, backbone_of, read_projection
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, load_model
from lesa.vectors import unit

EXPORTED: tuple[Kind, ...] = ("shared-attention", "mean-pool")
"""The models whose codes depend on no label, and whose scores follow from the codes alone."""
SMALL_TOLERANCE = 1e-2
"""What weights in 16 bits and vectors in 8 may change of the scores, as a share of their spread."""
LIMITS = """\
* Scores are margins, not probabilities: compare labels of one photo, or calibrate on photos like yours
  (`lesa calibrate`; `calibration.json`, if the bundle has one, says on which photos that was done).
* Seen labels tend to score above unseen ones on the same photo, because training photos carried them.
* The model sees the photo at one size: small objects are often missed.
* Labels of other words are guessed from their vectors alone. A word without a visible meaning gets a score, too.
* It inherits what its training photos and its word vectors get wrong, people and places included. It was not made to
  recognise persons or to judge them: do not use it for that."""


class PhotoEncoder(nn.Module):
    """Photos -> codes, attentions, regions in word space: backbone, projection of its store, trained model in one."""

    def __init__(self, backbone: nn.Module, projection: Projection | None, model: Model, vector_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        # The front runs once, before the model: its regions are both attended to and given out.
        self.front: nn.Module | None = getattr(model, "front", None)
        behind: Any = copy.deepcopy(model)
        behind.front = None
        self.model: Any = behind
        self.mean_D = None if projection is None else nn.Parameter(torch.from_numpy(projection.mean_D))
        self.components = None if projection is None else nn.Parameter(torch.from_numpy(projection.components))
        # The model scores labels too; the codes depend on none, so that part of the graph falls away.
        self.register_buffer("any_label_CE", torch.ones(1, vector_size))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (B, 3, H, W) -> codes (B, M, E), attentions (B, M, R), regions (B, R, E): each region alone times W.

        A code is a positive multiple of its attention's mean of the regions: that is what evidence follows from.
        """
        regions_BRD = self.backbone(pixels)
        if self.components is not None:
            regions_BRD = (regions_BRD - self.mean_D) @ self.components
        if self.front is not None:
            regions_BRD = self.front(regions_BRD)
        output = self.model(regions_BRD, self.any_label_CE)
        return output.codes_BME, output.attention_BMR, regions_BRD @ self.model.compatibility.w


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
        run: the trained run; the checkpoint that its recipe reports is exported.
        out: the zip to write.
        licence: of the weights, for the model card; unknown if not given.
        words: further words whose vectors the bundle shall carry, so that they work without the sources of vectors.
        regions: the store that says how photos become regions, if it is not where the recipe says.
        parents: what labels are kinds of, the outermost first.
        small: store weights in 16 bits and label vectors in 8; what is computed stays in 32.
        offline: look words up in the bundle alone, and put phrases together from its words.

    Returns:
        The greatest difference of the graph's scores from PyTorch's, as a share of the scores' spread: below 1e-4, or
        below 1e-2 if small.

    Raises:
        LesaError: the model is of a kind that has no codes, a part is missing, what has parents is not a label, or the
            graph differs from PyTorch.
    """
    kind = run.recipe.model.kind
    if kind not in EXPORTED:
        raise LesaError(f"{run.folder} holds a {kind!r} model, which has no codes: expected {' or '.join(EXPORTED)}")
    for label, above in parents.items():
        if label not in run.vocabulary.names or not all(above):
            hint = did_you_mean(label, run.vocabulary.names)
            raise LesaError(f"{'|'.join([*above, label])} is not a path to a label of the run: {hint}")
    backbone, projection = _front_half(run, regions or run.recipe.regions)
    model = load_model(run)
    manifest = replace(_manifest(run, backbone, words), parents=dict(parents), composed=offline)
    bundle = Bundle(
        path=out,
        manifest=manifest,
        vectors_CE=_vectors(run, manifest.words),
        space=run.space,
        graph=_make_graph(PhotoEncoder(backbone.module, projection, model, manifest.vector_size), backbone),
        card=_model_card(run, out.stem, licence),
        fingerprint="",
    )
    pixels = random_pixels(backbone.preprocessing, 3)
    expected_BC = _scores_of(backbone, projection, model, pixels, bundle.vectors_CE)
    difference = _check_scores(bundle, pixels, expected_BC, TOLERANCE)
    labels = pack_labels(bundle.vectors_CE, run.space.means_by_source, bits=8 if small else 32)
    if small:
        bundle = replace(bundle, graph=halved(bundle.graph), vectors_CE=read_labels(out, manifest, labels)[0])
        difference = _check_scores(bundle, pixels, expected_BC, SMALL_TOLERANCE)
    write_bundle(out, manifest, {GRAPH: bundle.graph, LABELS: labels, CARD: bundle.card.encode()})
    return difference


def _front_half(run: Run, folder: Path | str) -> tuple[Backbone, Projection | None]:
    """Return the backbone, with the preprocessing of the run's store, and the projection that follows it.

    Raises:
        LesaError: the store is not the run's, or its backbone has other weights now.
    """
    refuse_other_regions(run, RegionStore.open(folder))
    return backbone_of(folder), read_projection(folder)


def _manifest(run: Run, backbone: Backbone, words: Sequence[str]) -> Manifest:
    config, known = run.recipe.model, set(run.vocabulary.names)
    return Manifest(
        preprocessing=backbone.preprocessing,
        grid=backbone.grid,
        attentions=1 if config.kind == "mean-pool" else config.attentions,
        vector_size=config.vector_size,
        selection=config.selection,
        unseen=run.vocabulary.unseen,
        seen=run.vocabulary.seen,
        words=tuple(word for word in dict.fromkeys(words) if word not in known),
        sources=run.space.sources,
        region_shift=config.region_shift,
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
    model: Model,
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
    scores_BC = np.stack([select(codes @ bundle.vectors_CE.T, bundle.manifest.selection) for codes in codes_BME])
    difference = float(np.abs(scores_BC - expected_BC).max() / np.ptp(expected_BC))
    # Not `>`: NaN must not pass.
    if not difference < tolerance:
        raise LesaError(
            f"the bundle's scores differ from PyTorch's by {difference:.1e} of their spread, more than "
            f"{tolerance:.0e}: use another version of torch or onnxruntime"
        )
    return difference


def _model_card(run: Run, name: str, licence: str | None) -> str:
    """Return the model card: what it is, data, licence, metrics with their rules, limits."""
    backbone = run.regions["backbone"]["spec"].rpartition("/")[2]
    rows, columns = run.regions["grid"]
    sources = ", ".join(Path(source).name for source in run.recipe.vectors)
    return f"""# {name}

A tagger of photos made with lesa (`lesa export`): a photo becomes codes in word space, a label's score is the best dot
product of its vector with them.

| | |
|---|---|
| training data | {run.regions.get("data_set", "unknown")} |
| labels | {len(run.vocabulary.seen)} seen, {len(run.vocabulary.unseen)} unseen; any other word that has a vector |
| label vectors | {sources}{", centred" if run.recipe.centred else ""} |
| backbone | {backbone}, {rows} x {columns} regions of {run.regions["size"]} features |
| model | {run.recipe.model.kind}, loss {run.recipe.loss.kind}, seed {run.recipe.seed}, weights: {run.recipe.report} |
| licence of the weights | {licence or "unknown: ask who trained them, also manifest the data and the backbone"} |

## Metrics

{_metrics(run)}

## Limits

{LIMITS}
"""


def _metrics(run: Run) -> str:
    """Return the tables of the run's evaluation, if it used the exported weights."""
    path = run.folder / "evaluation.json"
    evaluated: dict[str, Any] = read_json(path) if path.exists() else {}
    if evaluated.get("checkpoint") != run.recipe.report:
        return "Not evaluated: the quality of its tags is unknown."
    lines = [f"Percent, on the {evaluated['split']} photos of {evaluated['data_set']}."]
    for rules, tasks in evaluated["reports"].items():
        reports = {task: Report.from_dict(values) for task, values in tasks.items()}
        lines += ["", markdown_table(*report_table(f"rules `{rules}`", reports))]
    return "\n".join(lines)
