"""Every method by its name: LESA, its control, and the methods that it is compared with (`lesa.learn.baselines`)."""

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from lesa.errors import LesaError, did_you_mean
from lesa.learn.baselines.attention_per_cluster import AttentionPerCluster
from lesa.learn.baselines.attention_per_label import AttentionPerLabel
from lesa.learn.baselines.biam import BiAM
from lesa.learn.baselines.conse import CONSE
from lesa.learn.baselines.eszsl import ESZSL
from lesa.learn.baselines.fast0tag import Fast0Tag, Fast0TagLinear
from lesa.learn.baselines.multi_label import WSABIE, Logistic
from lesa.learn.baselines.sdl import SDL
from lesa.learn.baselines.synthesised import Synthesised
from lesa.learn.baselines.training_free import TrainingFree
from lesa.learn.combined import Combined
from lesa.learn.model import OWN_SETTINGS, KnownClasses, MeanPool, Model, ModelConfig, SharedMultiAttention
from lesa.learn.settings import parse_settings

KINDS: dict[str, type[Model]] = {
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
    "synthesised": Synthesised,
    "combined": Combined,
    "training-free": TrainingFree,
    "logistic": Logistic,
    "wsabie": WSABIE,
}


def find_method(kind: str) -> type[Model]:
    """Return the class of a method.

    Raises:
        LesaError: there is no method of that name.
    """
    if kind not in KINDS:
        raise LesaError(f"model.kind is {kind!r}; {did_you_mean(kind, KINDS)}")
    return KINDS[kind]


def complete_settings(config: ModelConfig, where: str) -> ModelConfig:
    """Return the configuration with all of its method's own settings; what is not given has its default.

    Args:
        config: of the model.
        where: the place of the configuration, for messages.

    Raises:
        LesaError: there is no method of that name, or it has no such setting.
    """
    settings: Any = parse_settings(find_method(config.kind).settings_type, config.settings, where, OWN_SETTINGS)
    return replace(config, settings=asdict(settings))


def build_model(config: ModelConfig, vectors_SE: Tensor, seed: int, known: KnownClasses | None = None) -> Model:
    """Return a new model that knows the vectors of the S seen labels and, if given, the backbone's own classes.

    Its weights are a function of the arguments; the state of PyTorch's random numbers stays as it is.

    Raises:
        LesaError: there is no method of that name, or the configuration or the vectors do not fit it.
    """
    method = find_method(config.kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = method(config)
        model.known = known
        model.begin(vectors_SE)
    return model
