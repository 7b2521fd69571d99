"""A trained run as a tagger in memory, without a bundle: for pictures of where its labels come from (`lesa show`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from lesa.bundle import Bundle
from lesa.codes import Codes, Scored
from lesa.errors import LesaError
from lesa.learn.export import PhotoEncoder, load_backbone_and_projection, make_manifest
from lesa.learn.model import CodeModel, Encoded
from lesa.learn.run import Run, load_model
from lesa.tagger import Labels, Pixels, Tagger
from lesa.vectors import unit


@dataclass(frozen=True, eq=False)
class _RunCodes(Codes):
    """The codes of one photo as the run's model made them."""

    encoded: Encoded
    """With B = 1."""


class RunTagger(Tagger):
    """Tags photos with a run's model in PyTorch, where `Tagger` runs a bundle's graph."""

    def __init__(self, bundle: Bundle, encoder: PhotoEncoder, vectors: Sequence[str] = ()) -> None:
        super().__init__(bundle, vectors)
        self._encoder = encoder.eval()

    def score(self, codes: Codes, labels: Labels) -> Scored:
        """Return the labels' scores for a photo's codes, and the code that each label picked, by the run's model."""
        with torch.inference_mode():
            out = self._encoder.model.score_points(cast(_RunCodes, codes).encoded, torch.from_numpy(labels.points_CE))
            return Scored(out.scores_BC[0].numpy(), out.winner_BC[0].numpy())

    def _encode(self, photos: Sequence[Pixels]) -> list[Codes]:
        if not photos:
            return []
        with torch.inference_mode():
            encoded = self._encoder.encode(torch.from_numpy(np.stack([photo.pixels for photo in photos])))
            outputs = [part.numpy() for part in self._encoder.outputs(encoded)]
        singles = [Encoded(*(part[b : b + 1] for part in encoded)) for b in range(len(photos))]
        sizes = [photo.size for photo in photos]
        return [_RunCodes(*each) for each in zip(*outputs, sizes, singles, strict=True)]


def run_tagger(run: Run, regions: Path | str | None = None, vectors: Sequence[str] = ()) -> RunTagger:
    """Open a run as a tagger.

    Args:
        run: the trained run.
        regions: the store that says how photos become regions, if it is not where the recipe says.
        vectors: where the run's sources of word vectors are now, in the same order.

    Raises:
        LesaError: the run's model has no codes, the store is not the run's, or a part is missing.
    """
    model = load_model(run)
    if not isinstance(model, CodeModel):
        raise LesaError(f"{run.folder} holds a {run.recipe.model.kind!r} model, which has no attentions to show")
    backbone, projection = load_backbone_and_projection(run, regions or run.recipe.regions)
    bundle = Bundle(
        path=run.folder,
        manifest=make_manifest(run, model, backbone.preprocessing, backbone.grid),
        vectors_CE=unit(run.vectors_CE, run.vocabulary.names),
        space=run.space,
        graph=b"",
        card="",
        fingerprint="",
        label_map=model.label_map(),
    )
    return RunTagger(bundle, PhotoEncoder(backbone.module, projection, model), vectors)
