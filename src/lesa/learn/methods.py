"""Every model by its kind: LESA, its control, and the methods that it is compared with."""

import torch

from lesa.learn.baselines.attention_per_cluster import AttentionPerCluster
from lesa.learn.baselines.attention_per_label import AttentionPerLabel
from lesa.learn.baselines.biam import BiAM
from lesa.learn.baselines.conse import CONSE
from lesa.learn.baselines.eszsl import ESZSL
from lesa.learn.baselines.fast0tag import Fast0Tag, Fast0TagLinear
from lesa.learn.baselines.multi_label import WSABIE, Logistic
from lesa.learn.baselines.sdl import SDL
from lesa.learn.baselines.training_free import TrainingFree
from lesa.learn.model import Kind, MeanPool, Model, ModelConfig, SharedMultiAttention

KINDS: dict[Kind, type[Model]] = {
    "shared-attention": SharedMultiAttention,
    "mean-pool": MeanPool,
    "attention-per-label": AttentionPerLabel,
    "attention-per-cluster": AttentionPerCluster,
    "biam": BiAM,
    "sdl": SDL,
    "conse": CONSE,
    "eszsl": ESZSL,
    "fast0tag": Fast0Tag,
    "fast0tag-linear": Fast0TagLinear,
    "training-free": TrainingFree,
    "logistic": Logistic,
    "wsabie": WSABIE,
}


def build_model(config: ModelConfig, seed: int) -> Model:
    """Return a new model; its weights are a function of (config, seed)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KINDS[config.kind](config)
