"""BiAM: regions take in context from each other and from the scene; every region is scored, and pooling comes last."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from lesa.errors import LesaError
from lesa.learn.model import Model, ModelConfig, Scores, as_maps, check_sizes

HEADS = 8
TOP_REGIONS = 6
SLOPE = 0.2


@dataclass(frozen=True)
class BiAMSettings:
    """The settings of BiAM.

    Raises:
        LesaError: the heads cannot share the units evenly.
    """

    hidden: PositiveInt = 512
    """H, the number of units of the hidden layers."""

    def __post_init__(self) -> None:
        if self.hidden % HEADS:
            raise LesaError(f"model.settings.hidden is {self.hidden}; BiAM expects a multiple of its {HEADS} heads")


class BiAM(Model):
    """Bi-level attention: a label's score is the mean of its best regions' scores; the regions take in context first.

        h       = BN(ReLU(conv3x3(f)))                                        B, R, H (`hidden`)
        region context, self-attention with 8 heads and a feed-forward layer, both residual:
        o[b,r]  = h[b,r] + W_o concat over heads of softmax_r'(q[b,r] . k[b,r'] / sqrt(H / 8)) v[b,r']
        e_r     = o + W_2 ReLU(W_1 o)                                         W_1: H -> 2 H
        scene context, the channels that the scene x calls for:
        g       = LeakyReLU(W_c h)
        c[b,r]  = sigmoid(mean_r g[b,r] * W_g x[b]) * g[b,r]
        e_g     = c + BN(ReLU(conv3x3(c)))
        scores by region, pooled last:
        e_f     = LeakyReLU(W_f [e_r; e_g])                                   B, R, D
        m[b,r,c] = e_f[b,r] . (W v[c] + bias)                                 v: label vector of unit length
        s[b,c]  = mean of the 6 largest m[b,r,c] over r

    Source: Narayan, Gupta, Khan, Khan, Shao & Shah, Discriminative Region-based Multi-Label Zero-Shot Learning, ICCV
    2021, section 3; sizes and details as in the authors' published program (NUS-WIDE: H = 256, 8 heads, slope 0.2, 6
    regions of 196), trained with LESA's ranking loss.

    Ours: the scene x is the mean region, where theirs is VGG-19's fully connected layer of the whole photo, which
    stored regions do not hold; no dropout, as a training step here draws nothing at random; running averages of the
    batch normalisation keep 0.99 of the old value; 6 regions whatever the grid, all of them where there are fewer.
    """

    settings_type = BiAMSettings
    settings: BiAMSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D, E, H = config.region_size, config.vector_size, self.settings.hidden
        self.enter = Convolution(D, H, config.grid)
        self.attention = nn.MultiheadAttention(H, HEADS, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(H, 2 * H), nn.ReLU(), nn.Linear(2 * H, H))
        self.channels = nn.Linear(H, H)
        self.scene = nn.Linear(D, H)
        self.spread = Convolution(H, H, config.grid)
        self.join = nn.Linear(2 * H, D)
        self.classifiers = nn.Linear(E, D)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their regions.

        Raises:
            LesaError: the regions' or the vectors' size is not the model's, or the regions do not make its grid.
        """
        check_sizes(self.config, regions_BRD, vectors_CE)
        hidden_BRH = self.enter(regions_BRD)
        context = torch.cat([self.region_context(hidden_BRH), self.scene_context(hidden_BRH, regions_BRD)], dim=2)
        enriched_BRD = F.leaky_relu(self.join(context), SLOPE)
        by_region_BRC = enriched_BRD @ self.classifiers(F.normalize(vectors_CE, dim=1)).T
        top = min(TOP_REGIONS, by_region_BRC.shape[1])
        return Scores(by_region_BRC.topk(top, dim=1).values.mean(dim=1))

    def region_context(self, hidden_BRH: Tensor) -> Tensor:
        """Return e_r, `B, R, H`."""
        attended_BRH, _ = self.attention(hidden_BRH, hidden_BRH, hidden_BRH, need_weights=False)
        attended_BRH = attended_BRH + hidden_BRH
        enriched_BRH: Tensor = attended_BRH + self.feed_forward(attended_BRH)
        return enriched_BRH

    def scene_context(self, hidden_BRH: Tensor, regions_BRD: Tensor) -> Tensor:
        """Return e_g, `B, R, H`."""
        channels_BRH = F.leaky_relu(self.channels(hidden_BRH), SLOPE)
        gate_B1H = torch.sigmoid(channels_BRH.mean(dim=1) * self.scene(regions_BRD.mean(dim=1)))[:, None]
        gated_BRH = gate_B1H * channels_BRH
        enriched_BRH: Tensor = gated_BRH + self.spread(gated_BRH)
        return enriched_BRH


class Convolution(nn.Module):
    """3 x 3 convolution, ReLU, batch normalisation over the grid of regions: `B, R, inside` -> `B, R, outside`."""

    def __init__(self, inside: int, outside: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.grid = grid
        self.convolution = nn.Conv2d(inside, outside, kernel_size=3, padding=1)
        self.normalisation = nn.BatchNorm2d(outside, eps=1e-3, momentum=0.01)

    def forward(self, regions: Tensor) -> Tensor:
        """Return each region with its neighbourhood taken in.

        Raises:
            LesaError: the regions do not make the configured grid, or no grid is configured and R is not a square.
        """
        maps = as_maps(regions, self.grid, remedy="set model.grid to [rows, columns]")
        maps = F.relu(self.convolution(maps.contiguous(memory_format=torch.channels_last)))
        around: Tensor = self.normalisation(maps).flatten(2).transpose(1, 2)
        return around
