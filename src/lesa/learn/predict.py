"""Scores of many photos: store rows x label vectors -> scores, in batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lesa.learn.model import Scores
from lesa.learn.regions.store import RegionStore


def predict(
    model: nn.Module, store: RegionStore, rows: NDArray[np.int64], vectors_CE: Tensor, batch_size: int = 64
) -> NDArray[np.float32]:
    """Return the scores of the store's `rows` for C labels, `N, C`."""
    return np.concatenate(
        [out.scores_BC.cpu().numpy() for out in outputs(model, store, rows, vectors_CE, batch_size)]
    ).astype(np.float32, copy=False)


def outputs(
    model: nn.Module, store: RegionStore, rows: NDArray[np.int64], vectors_CE: Tensor, batch_size: int
) -> Iterator[Scores]:
    """Yield the model's output for each batch, in evaluation mode (batch normalisation by its running averages)."""
    device = vectors_CE.device
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(rows), batch_size):
            with torch.inference_mode():
                out: Scores = model(read_regions(store, rows[start : start + batch_size], device), vectors_CE)
            yield out
    finally:
        model.train(was_training)


def read_regions(store: RegionStore, rows: Any, device: torch.device) -> Tensor:
    """Return the regions of the store's `rows`, `B, R, D`, float32, on the device."""
    return torch.from_numpy(store.read(rows)).to(device)
