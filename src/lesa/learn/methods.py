"""Every model by its kind: LESA, its control, and the methods that it is compared with."""

import torch

from lesa.learn.model import Kind, MeanPool, Model, ModelConfig, SharedMultiAttention

KINDS: dict[Kind, type[Model]] = {
    "shared-attention": SharedMultiAttention,
    "mean-pool": MeanPool,
}


def build_model(config: ModelConfig, seed: int) -> Model:
    """Return a new model; its weights are a function of (config, seed)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KINDS[config.kind](config)
