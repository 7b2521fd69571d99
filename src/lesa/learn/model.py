"""The model: a photo becomes M codes in word space; label vectors x codes -> scores.

`CodeModel.encode` makes the codes, which depend on no label. `CodeModel.score` gives a label the score of the code that
suits it. Everything here is mathematics: tensors in, tensors out (Huynh & Elhamifar, CVPR 2020, section 3).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesa.codes import Selection
from lesa.errors import LesaError
from lesa.label_map import LabelMap
from lesa.learn.settings import parse_settings

OWN_SETTINGS = "model.settings."
"""What comes before a method's own settings in a recipe."""


@dataclass(frozen=True)
class ModelConfig:
    """The settings of a model. The defaults are the paper's NUS-WIDE model.

    Raises:
        LesaError: a size is below one.
    """

    kind: str = "shared-attention"
    """A name of `lesa.learn.methods.KINDS`: `shared-attention` is LESA, `mean-pool` its control."""
    region_size: int = 512
    """D, the number of channels of a region."""
    vector_size: int = 300
    """E, the length of a label vector."""
    attentions: int = 10
    """M, the number of attentions that all labels share."""
    front: bool = True
    """Whether a trainable 2 x 2 convolution with batch normalisation comes before the attentions."""
    separate: bool = False
    """Whether each attention has its own W1; otherwise all attentions share one."""
    unit_codes: bool = False
    """Whether codes have unit length times a learned temperature (at most 100)."""
    selection: Selection = "max"
    """How a label's score follows from its dot products with the M codes: the best one, or a soft maximum."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the regions, which the front needs; square if not given."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The method's own settings by name, see its class in `lesa.learn.baselines`; LESA has none."""

    @property
    def uses_classes(self) -> bool:
        """Whether the method takes the backbone's own classes: its setting `classes` is on."""
        return self.settings.get("classes") is True

    def __post_init__(self) -> None:
        for name in ("region_size", "vector_size", "attentions"):
            if getattr(self, name) < 1:
                raise LesaError(f"model.{name} is {getattr(self, name)}; expected at least 1")
        if self.grid is not None and min(self.grid) < 1:
            raise LesaError(f"model.grid is {list(self.grid)}; expected rows and columns of at least 1")


class Encoded(NamedTuple):
    """B photos as M codes in an E-dimensional word space. Nothing here depends on a label."""

    codes_BME: Tensor
    """The codes: M points in word space per photo."""
    attention_BMR: Tensor
    """Where each attention looks: sums to one over the regions."""
    logits_BMR: Tensor
    """The attentions before the softmax."""
    uniform_BE: Tensor
    """The code of the mean region, which an attention must beat (relevance loss)."""
    regions_BRD: Tensor
    """The regions after the front, which the attentions look at."""


@dataclass(frozen=True)
class Scores:
    """The output of every model for B photos and C labels."""

    scores_BC: Tensor
    """The labels' scores: unbounded margins, not probabilities."""


@dataclass(frozen=True)
class CodeScores(Scores):
    """The output of a model that turns a photo into M points in an E-dimensional word space."""

    codes_BME: Tensor
    """The points. They depend on no label."""


@dataclass(frozen=True)
class Output(CodeScores):
    """The output of a model with M attentions over R regions."""

    by_attention_BMC: Tensor
    """The dot product of each label's vector with each attention's code."""
    attention_BMR: Tensor
    """Where each attention looks: sums to one over the regions."""
    logits_BMR: Tensor
    """The attentions before the softmax."""
    uniform_scores_BC: Tensor
    """The scores of the mean region's code, which an attention must beat (relevance loss)."""

    @property
    def winner_BC(self) -> Tensor:
        """The attention that each label's score comes from."""
        return self.by_attention_BMC.argmax(dim=1)


class KnownClasses(NamedTuple):
    """The classes that the backbone already knows by name (`lesa.learn.regions.classes`), for methods that use them.

    Only classes with a label vector are here (K). The mean row is that of all classes: what a classifier adds to all
    logits alike says nothing about a class.
    """

    vectors_KE: Tensor
    """The label vector of each class, of unit length: of several synonyms the mean's direction."""
    rows_KD: Tensor
    """The row of each class in the backbone's classifier less the mean row, in the space of the regions."""


@dataclass(frozen=True)
class NoSettings:
    """The settings of a method that has none of its own."""


class Model(nn.Module):
    """A method that the training loop trains: regions x label vectors -> scores.

    The class attributes say what a method can do. `lesa.learn.methods.build_model` makes a model and calls `begin`.
    """

    settings_type: ClassVar[type] = NoSettings
    """The frozen dataclass of the method's own settings: `model.settings` of a recipe."""
    seen_only: ClassVar[bool] = False
    """Whether it scores the S seen labels only, in their order, for any label vectors."""
    exportable: ClassVar[bool] = False
    """Whether its scores follow from its codes and the label vectors alone, so that a bundle can hold it."""
    summed: ClassVar[bool] = False
    """Whether a part of it has a closed form, solved from sums over the first epoch, beside what is trained by steps.
    With the loss kind `closed-form` all of it has."""
    settings: Any
    """The method's own settings: an object of `settings_type`."""
    known: KnownClasses | None = None
    """The backbone's own classes, if the method has the setting `classes` and it is on; set before `begin`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.settings = parse_settings(self.settings_type, config.settings, f"the model {config.kind!r}", OWN_SETTINGS)
        self.front: Front | None = None

    @property
    def region_shift(self) -> float:
        """How far, in grid cells, a region's content is shifted down and right.

        The front's 2 x 2 window also covers the next row and column.
        """
        return 0.0 if self.front is None else 0.5

    def begin(self, vectors_SE: Tensor) -> None:
        """Take in the vectors of the S seen labels; called once, when the model is built.

        Weights for each seen label are made here. Everything that is kept must be a weight or a buffer, so that
        checkpoints hold it.
        """

    def accumulate(self, regions_BRD: Tensor, vectors_SE: Tensor, targets_BS: Tensor) -> None:
        """Add a batch to the sums of a closed form.

        Raises:
            LesaError: the method has no closed form.
        """
        raise LesaError(f"the model {self.config.kind!r} has no closed form: give another `loss.kind`")

    def solve(self) -> None:
        """Set the weights from the sums; called after the last batch."""


class CodeModel(Model, ABC):
    """A model with codes: a photo becomes M codes that depend on no label; a label picks the code that suits it.

    A code's attention says where in the photo a label was found, so that `lesa show` can draw it.
    """

    exportable = True
    word_space: "WordSpace"
    """W, and how a label picks its code."""

    @property
    def attentions(self) -> int:
        """M, the number of codes of a photo."""
        return self.config.attentions

    @property
    def code_size(self) -> int:
        """The length of a code; that of a label vector, unless the model has a label map."""
        return self.config.vector_size

    def region_points(self, regions_BRD: Tensor) -> Tensor:
        """Return each region alone among the codes, `B, R, code size`; `regions_BRD` as `encode` returns them."""
        return regions_BRD @ self.word_space.w

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Output:
        """Score C labels by their vectors on B photos by their regions.

        Raises:
            LesaError: the regions' or the vectors' size is not the model's.
        """
        return self.score(self.encode(regions_BRD), vectors_CE)

    @abstractmethod
    def encode(self, regions_BRD: Tensor) -> Encoded:
        """Turn the regions of B photos into codes.

        Raises:
            LesaError: the regions' size is not the model's.
        """

    def score(self, encoded: Encoded, vectors_CE: Tensor) -> Output:
        """Score C labels by their vectors on B photos by their codes.

        Raises:
            LesaError: the vectors' size is not the model's.
        """
        check_vectors(self.config, vectors_CE)
        return self.score_points(encoded, self.points(F.normalize(vectors_CE, dim=1)))

    def points(self, unit_CE: Tensor) -> Tensor:
        """Return where the labels lie among the codes, `C, code size`: here their vectors of unit length."""
        return unit_CE

    def label_map(self) -> LabelMap | None:
        """Return `points` for use without PyTorch; None if the labels' points are their vectors."""
        return None

    def score_points(self, encoded: Encoded, points_CE: Tensor) -> Output:
        """Score C labels by their points on B photos by their codes."""
        points_EC = points_CE.T
        by_attention_BMC = encoded.codes_BME @ points_EC
        return Output(
            scores_BC=self.word_space.select(by_attention_BMC),
            codes_BME=encoded.codes_BME,
            by_attention_BMC=by_attention_BMC,
            attention_BMR=encoded.attention_BMR,
            logits_BMR=encoded.logits_BMR,
            uniform_scores_BC=encoded.uniform_BE @ points_EC,
        )


def as_maps(regions_BRD: Tensor, grid: tuple[int, int] | None, remedy: str) -> Tensor:
    """Return regions as feature maps `B, D, rows, columns`; the grid is square if none is given.

    Raises:
        LesaError: the regions do not make the grid; `remedy` says what to do.
    """
    B, R, D = regions_BRD.shape
    rows, columns = grid or (math.isqrt(R), math.isqrt(R))
    if rows * columns != R:
        expected = f"a grid of {rows} x {columns}" if grid else "a square grid"
        raise LesaError(f"{R} regions do not make {expected}: {remedy}")
    return regions_BRD.transpose(1, 2).reshape(B, D, rows, columns)


class Front(nn.Module):
    """2 x 2 convolution D -> D, batch normalisation, ReLU over the grid of regions (docs/method.md, Regions).

    TensorFlow's "same" padding of an even kernel adds one row below and one column at the right; its batch
    normalisation keeps 0.99 of the old running average and uses epsilon 1e-3.
    """

    def __init__(self, size: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.convolution = nn.Conv2d(size, size, kernel_size=2, bias=False)
        self.normalisation = nn.BatchNorm2d(size, eps=1e-3, momentum=0.01)
        he_(self.convolution.weight, fan_in=4 * size)

    def forward(self, regions_BRD: Tensor) -> Tensor:
        """Return regions of the same shape `B, R, D`.

        Raises:
            LesaError: R regions do not make the configured grid, or no grid is configured and R is not a square.
        """
        maps_BDHW = as_maps(regions_BRD, self.grid, remedy="set model.grid to [rows, columns], or front = false")
        padded = F.pad(maps_BDHW, (0, 1, 0, 1)).contiguous(memory_format=torch.channels_last)
        maps_BDHW = F.relu(self.normalisation(self.convolution(padded)))
        return maps_BDHW.flatten(2).transpose(1, 2)


class SharedMultiAttention(CodeModel):
    """LESA: M attentions that all labels share, seen and unseen; each label selects the one that suits it best.

        u[b,r]     = tanh(W1 f[b,r] + b1)          one W1 for all attentions, or one each (`separate`)
        e[b,m,r]   = w2[m] . u[b,r] + b2[m]
        alpha[b,m] = softmax over r of e[b,m]
        h[b,m]     = sum_r alpha[b,m,r] f[b,r]
        z[b,m]     = h[b,m] W                      the codes
        s[b,c]     = max_m z[b,m] . v[c]           v: label vector of unit length

    The biases are the last rows of `w1` and `w2`, as in the authors' program, and are initialised with them.

    By default it does not differ from the paper. With `unit_codes` the codes have unit length times a learned
    temperature, and with `selection="log-mean-exp"` the maximum is a soft one: the recipe `contrastive`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D, M = config.region_size, config.attentions
        if config.front:
            self.front = Front(D, config.grid)
        self.w1 = nn.Parameter(torch.empty((M, D + 1, D) if config.separate else (D + 1, D)))
        self.w2 = nn.Parameter(torch.empty(D + 1, M))
        self.word_space = WordSpace(config)
        he_(self.w1, fan_in=D + 1)
        he_(self.w2, fan_in=D + 1)

    def encode(self, regions_BRD: Tensor) -> Encoded:
        """Turn the regions of B photos into the codes of M attentions.

        Raises:
            LesaError: the regions' size is not the model's, or the front needs another grid.
        """
        check_regions(self.config, regions_BRD)
        if self.front is not None:
            regions_BRD = self.front(regions_BRD)
        logits_BMR = self._attention_logits(regions_BRD)
        attention_BMR = logits_BMR.softmax(dim=2)
        codes_BME = self.word_space.codes(attention_BMR @ regions_BRD)
        uniform_BE = self.word_space.codes(regions_BRD.mean(dim=1))
        return Encoded(codes_BME, attention_BMR, logits_BMR, uniform_BE, regions_BRD)

    def _attention_logits(self, regions_BRD: Tensor) -> Tensor:
        """Return e, `B, M, R`, from regions after the front."""
        w2_DM, b2_M = self.w2[:-1], self.w2[-1]
        if self.config.separate:
            w1_MDD, b1_MD = self.w1[:, :-1], self.w1[:, -1]
            u_MBRD = torch.tanh(torch.einsum("brd,mde->mbre", regions_BRD, w1_MDD) + b1_MD[:, None, None])
            return torch.einsum("mbrd,dm->bmr", u_MBRD, w2_DM) + b2_M[:, None]
        u_BRD = torch.tanh(F.linear(regions_BRD, self.w1[:-1].T, self.w1[-1]))
        return F.linear(u_BRD, w2_DM.T, b2_M).transpose(1, 2)


class MeanPool(CodeModel):
    """The control: the mean region in place of the attentions, `s[b,c] = mean_r f[b,r] W . v[c]`, called as LESA is.

    Its output has M = 1 attention, which is uniform. With the ranking hinge (recipe `labelem`) it is LabelEM (Akata et
    al., "Label-Embedding for Image Classification", TPAMI 2016, section 3): a bilinear compatibility of image feature
    and label embedding. The loss is LESA's mean over the violating pairs. The paper's ALE weights pairs by rank
    instead; the loss `warp` does that.
    """

    attentions = 1

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.word_space = WordSpace(config)

    def encode(self, regions_BRD: Tensor) -> Encoded:
        """Turn the regions of B photos into one code each, that of the mean region.

        Raises:
            LesaError: the regions' size is not the model's.
        """
        check_regions(self.config, regions_BRD)
        B, R, _ = regions_BRD.shape
        logits_BMR = regions_BRD.new_zeros(B, 1, R)
        codes_BME = self.word_space.codes(regions_BRD.mean(dim=1, keepdim=True))
        uniform_BE = self.word_space.codes(regions_BRD.mean(dim=1))
        return Encoded(codes_BME, logits_BMR.softmax(dim=2), logits_BMR, uniform_BE, regions_BRD)


class WordSpace(nn.Module):
    """W and the selection of a code: features -> codes in word space, dot products -> scores (paper, section 3.2)."""

    def __init__(self, config: ModelConfig, code_size: int | None = None) -> None:
        """Make W for codes of the length of a label vector, or of another one."""
        super().__init__()
        self.selection = config.selection
        self.w = nn.Parameter(torch.empty(config.region_size, code_size or config.vector_size))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07))) if config.unit_codes else None
        he_(self.w, fan_in=config.region_size)

    def codes(self, features: Tensor) -> Tensor:
        """Project features `..., D` into word space `..., E`."""
        codes = features @ self.w
        temperature = self.temperature()
        return codes if temperature is None else F.normalize(codes, dim=-1) * temperature

    def temperature(self) -> Tensor | None:
        """Return the length of the codes, if all have the same; a learned one stays below 100, as in CLIP."""
        return None if self.log_temperature is None else self.log_temperature.exp().clamp(max=100)

    def select(self, by_attention_BMC: Tensor) -> Tensor:
        """Reduce each label's M dot products to one score; at a tie the gradient is shared, as in TensorFlow."""
        if self.selection == "max":
            return by_attention_BMC.amax(dim=1)
        return by_attention_BMC.logsumexp(dim=1) - math.log(by_attention_BMC.shape[1])


def check_sizes(config: ModelConfig, regions_BRD: Tensor, vectors_CE: Tensor) -> None:
    """Refuse regions or label vectors whose size is not the model's.

    Raises:
        LesaError: names the expected shape and the given one.
    """
    check_regions(config, regions_BRD)
    check_vectors(config, vectors_CE)


def check_regions(config: ModelConfig, regions_BRD: Tensor) -> None:
    """Refuse regions whose size is not the model's; raises as `check_sizes`."""
    _check_shape("regions", regions_BRD, 3, config.region_size, "B, R, D")


def check_vectors(config: ModelConfig, vectors_CE: Tensor) -> None:
    """Refuse label vectors whose size is not the model's; raises as `check_sizes`."""
    _check_shape("label vectors", vectors_CE, 2, config.vector_size, "C, E")


def _check_shape(name: str, tensor: Tensor, dimensions: int, size: int, letters: str) -> None:
    if tensor.ndim != dimensions or tensor.shape[-1] != size:
        raise LesaError(f"{name}: expected shape ({letters}) with a last size of {size}, got {tuple(tensor.shape)}")


def he_(weights: Tensor, fan_in: int) -> None:
    """Fill with He's initialisation from a normal distribution truncated at two deviations (variance 2 / fan_in)."""
    # A unit normal that is cut at +-2 has a deviation of 0.8796.
    deviation = math.sqrt(2 / fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(weights, std=deviation, a=-2 * deviation, b=2 * deviation)
