"""The model: regions x label vectors -> shared attentions -> codes in word space -> scores.

A photo becomes M codes in word space that depend on no label; a label's score is the best dot product of its vector
with the codes. Everything here is mathematics: tensors in, tensors out (Huynh & Elhamifar, CVPR 2020, section 3).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesa.errors import LesaError

Selection = Literal["max", "log-mean-exp"]
Kind = Literal[
    "shared-attention",
    "mean-pool",
    "attention-per-label",
    "attention-per-cluster",
    "conse",
    "eszsl",
    "fast0tag",
    "fast0tag-linear",
    "biam",
    "sdl",
    "training-free",
    "logistic",
    "wsabie",
]
"""The models by name; `lesa.learn.methods` builds them."""
WITH_ATTENTIONS: tuple[Kind, ...] = ("shared-attention", "mean-pool", "attention-per-cluster")
"""Those whose output says where in the photo each label was found: an `Output`."""


@dataclass(frozen=True)
class ModelConfig:
    """What a model is built from. The defaults are the paper's NUS-WIDE model."""

    kind: Kind = "shared-attention"
    """`shared-attention` is LESA; `mean-pool` its control, the mean region in place of the attentions; or a method
    that it is compared with (`lesa.learn.baselines`)."""
    region_size: int = 512
    """D, the channels of a region feature."""
    vector_size: int = 300
    """E, the length of a label vector."""
    attentions: int = 10
    """M, the number of attentions that all labels share."""
    front: bool = True
    """Whether a trainable 2 x 2 convolution with batch normalisation stands in front of the attentions."""
    separate: bool = False
    """One W1 for each attention instead of one for all."""
    unit_codes: bool = False
    """Codes of unit length times a learned temperature (at most 100), instead of as they are."""
    selection: Selection = "max"
    """How a label's score follows from its M compatibilities: the best one, or a soft maximum."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the regions, which the front needs; square if not given."""
    seen_labels: int = 1
    """S, the number of seen labels, for methods that learn something for each of them."""
    top_labels: int = 10
    """T, the seen labels whose vectors stand for a photo (`conse`)."""
    ridge: float = 1.0
    """Weight of the squared norm on the side of the regions (`eszsl`, `fast0tag-linear`)."""
    label_ridge: float = 1.0
    """Weight of the squared norm on the side of the label vectors (`eszsl`, `fast0tag-linear`)."""
    hidden: int = 512
    """Units of the hidden layers (`fast0tag`, `biam`); the size of the common space (`wsabie`)."""

    @property
    def region_shift(self) -> float:
        """Regions by which what a region holds lies below and right of its cell: the front's 2 x 2 windows reach on."""
        return 0.5 if self.front and self.kind == "shared-attention" else 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that no model has."""
        for name in ("region_size", "vector_size", "attentions", "seen_labels", "top_labels", "hidden"):
            if getattr(self, name) < 1:
                raise LesaError(f"model.{name} is {getattr(self, name)}; expected at least 1")
        for name in ("ridge", "label_ridge"):
            if not getattr(self, name) > 0:
                raise LesaError(f"model.{name} is {getattr(self, name)}; expected a positive number")
        if self.grid is not None and min(self.grid) < 1:
            raise LesaError(f"model.grid is {list(self.grid)}; expected rows and columns of at least 1")


@dataclass(frozen=True)
class Scores:
    """What every model says of B photos about C labels."""

    scores_BC: Tensor
    """The labels' scores: unbounded margins, not probabilities."""


@dataclass(frozen=True)
class Output(Scores):
    """What a model with attentions says of B photos with R regions, by M attentions in an E-dimensional word space."""

    by_attention_BMC: Tensor
    """The compatibility of each label with each attention's code, `codes . v`."""
    attention_BMR: Tensor
    """Where each attention looks: sums to one over the regions."""
    logits_BMR: Tensor
    """The attentions before the softmax."""
    codes_BME: Tensor
    """The photo as M points in word space. They depend on no label."""
    uniform_scores_BC: Tensor
    """The scores that the mean region gets: what an attention must beat (relevance loss)."""

    @property
    def winner_BC(self) -> Tensor:
        """The attention that each label's score comes from."""
        return self.by_attention_BMC.argmax(dim=1)


class Model(nn.Module):
    """What the training loop trains: regions x label vectors -> scores, and what is learned otherwise than by steps."""

    seen_only = False
    """Whether it scores the S seen labels only, in their order, whatever vectors it is given."""

    def begin(self, vectors_SE: Tensor) -> None:
        """Take in what the method needs to know of the seen labels; called once, before the first step.

        What it keeps must be buffers, so that checkpoints hold it.
        """

    def accumulate(self, regions_BRD: Tensor, vectors_SE: Tensor, targets_BS: Tensor) -> None:
        """Add a batch to the sums of a closed form (loss kind `closed-form`)."""
        raise LesaError("this model has no closed form: give another `loss.kind`")

    def solve(self) -> None:
        """Set the weights from the sums; called after the last batch."""


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


class SharedMultiAttention(Model):
    """LESA: M attentions that all labels share, seen and unseen; each label selects the one that suits it best.

        u[b,r]     = tanh(W1 f[b,r] + b1)          one W1 for all attentions, or one each (`separate`)
        e[b,m,r]   = w2[m] . u[b,r] + b2[m]
        alpha[b,m] = softmax over r of e[b,m]
        h[b,m]     = sum_r alpha[b,m,r] f[b,r]
        z[b,m]     = h[b,m] W                      the codes
        s[b,c]     = max_m z[b,m] . v[c]           v: label vector of unit length

    The biases are the last rows of `w1` and `w2`, as in the authors' program, and are initialised with them.

    Differs from the paper: nothing by default. With `unit_codes` the codes have unit length times a learned
    temperature, and with `selection="log-mean-exp"` the maximum is a soft one: the recipe `contrastive`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, M = config.region_size, config.attentions
        self.config = config
        self.front = Front(D, config.grid) if config.front else None
        self.w1 = nn.Parameter(torch.empty((M, D + 1, D) if config.separate else (D + 1, D)))
        self.w2 = nn.Parameter(torch.empty(D + 1, M))
        self.compatibility = Compatibility(config)
        he_(self.w1, fan_in=D + 1)
        he_(self.w2, fan_in=D + 1)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Output:
        """Score C labels by their vectors on B photos by their regions.

        Raises:
            LesaError: the regions' or the vectors' size is not the model's.
        """
        check_sizes(self.config, regions_BRD, vectors_CE)
        if self.front is not None:
            regions_BRD = self.front(regions_BRD)
        logits_BMR = self.attention_logits(regions_BRD)
        attention_BMR = logits_BMR.softmax(dim=2)
        features_BMD = attention_BMR @ regions_BRD
        out: Output = self.compatibility(features_BMD, regions_BRD, vectors_CE, attention_BMR, logits_BMR)
        return out

    def attention_logits(self, regions_BRD: Tensor) -> Tensor:
        """Return e, `B, M, R`, from regions after the front."""
        w2_DM, b2_M = self.w2[:-1], self.w2[-1]
        if self.config.separate:
            w1_MDD, b1_MD = self.w1[:, :-1], self.w1[:, -1]
            u_MBRD = torch.tanh(torch.einsum("brd,mde->mbre", regions_BRD, w1_MDD) + b1_MD[:, None, None])
            return torch.einsum("mbrd,dm->bmr", u_MBRD, w2_DM) + b2_M[:, None]
        u_BRD = torch.tanh(F.linear(regions_BRD, self.w1[:-1].T, self.w1[-1]))
        return F.linear(u_BRD, w2_DM.T, b2_M).transpose(1, 2)


class MeanPool(Model):
    """The control: the mean region in place of the attentions, `s[b,c] = mean_r f[b,r] W . v[c]`, called as LESA is.

    With the ranking hinge (recipe `labelem`) it is LabelEM (Akata et al., "Label-Embedding for Image Classification",
    TPAMI 2016, section 3): a bilinear compatibility of image feature and label embedding. Ours: LESA's mean over the
    violating pairs in place of ALE's weights by rank, which WARP has (loss `warp`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compatibility = Compatibility(config)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Output:
        """Score C labels by their vectors on B photos; the output has M = 1 attention, which is uniform."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        B, R, _ = regions_BRD.shape
        logits_BMR = regions_BRD.new_zeros(B, 1, R)
        pooled_BMD = regions_BRD.mean(dim=1, keepdim=True)
        attention_BMR = logits_BMR.softmax(dim=2)
        out: Output = self.compatibility(pooled_BMD, regions_BRD, vectors_CE, attention_BMR, logits_BMR)
        return out


class Compatibility(nn.Module):
    """W and the selection of an attention: attention features -> codes -> scores (paper, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.selection = config.selection
        self.w = nn.Parameter(torch.empty(config.region_size, config.vector_size))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07))) if config.unit_codes else None
        he_(self.w, fan_in=config.region_size)

    def forward(
        self,
        features_BMD: Tensor,
        regions_BRD: Tensor,
        vectors_CE: Tensor,
        attention_BMR: Tensor,
        logits_BMR: Tensor,
    ) -> Output:
        """Return the whole output; `attention_BMR` and `logits_BMR` are handed through."""
        vectors_EC = F.normalize(vectors_CE, dim=1).T
        codes_BME = self.codes(features_BMD)
        by_attention_BMC = codes_BME @ vectors_EC
        return Output(
            scores_BC=self.select(by_attention_BMC),
            by_attention_BMC=by_attention_BMC,
            attention_BMR=attention_BMR,
            logits_BMR=logits_BMR,
            codes_BME=codes_BME,
            uniform_scores_BC=self.codes(regions_BRD.mean(dim=1)) @ vectors_EC,
        )

    def codes(self, features: Tensor) -> Tensor:
        """Project features `..., D` into word space `..., E`; a learned temperature stays below 100, as in CLIP."""
        codes = features @ self.w
        if self.log_temperature is None:
            return codes
        return F.normalize(codes, dim=-1) * self.log_temperature.exp().clamp(max=100)

    def select(self, by_attention_BMC: Tensor) -> Tensor:
        """Reduce each label's M compatibilities to one score; a gradient at a tie is shared, as TensorFlow does."""
        if self.selection == "max":
            return by_attention_BMC.amax(dim=1)
        return by_attention_BMC.logsumexp(dim=1) - math.log(by_attention_BMC.shape[1])


def check_sizes(config: ModelConfig, regions_BRD: Tensor, vectors_CE: Tensor) -> None:
    """Refuse regions or vectors that are not the model's.

    Raises:
        LesaError: names what was expected and what came.
    """
    given: dict[str, Any] = {
        "regions": (regions_BRD, 3, config.region_size, "B, R, D"),
        "label vectors": (vectors_CE, 2, config.vector_size, "C, E"),
    }
    for what, (tensor, dimensions, size, letters) in given.items():
        if tensor.ndim != dimensions or tensor.shape[-1] != size:
            raise LesaError(f"{what}: expected shape ({letters}) with a last size of {size}, got {tuple(tensor.shape)}")


def he_(weights: Tensor, fan_in: int) -> None:
    """Fill with He's initialisation from a normal distribution truncated at two deviations (variance 2 / fan_in)."""
    # A unit normal that is cut at +-2 has a deviation of 0.8796.
    deviation = math.sqrt(2 / fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(weights, std=deviation, a=-2 * deviation, b=2 * deviation)
