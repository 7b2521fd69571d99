"""SDL: a photo as several principal vectors in word space, trained with a loss that asks for diverse ones."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lesa.learn.losses import soft_ranking
from lesa.learn.model import Model, ModelConfig, Scores, check_sizes

SPREAD = 0.3
"""Weight of the variance of a photo's rows: the default of the authors' program; their COCO script takes 0.01."""


@dataclass(frozen=True)
class Rows(Scores):
    """What SDL says of B photos."""

    rows_BME: Tensor
    """The photo as M points in word space."""


class SDL(Model):
    """The pooled photo maps to M rows in word space; a label's score is that of its best row.

        A[b]   = W mean_r f[b,r] + bias        M x E, M = `attentions` (7 in the paper on NUS-WIDE)
        s[b,c] = max_m A[b,m] . v[c]           v: label vector of unit length

    Source: Ben-Cohen, Zamir, Ben-Baruch, Friedman & Zelnik-Manor, Semantic Diversity Learning for Zero-Shot Multi-label
    Classification, ICCV 2021, section 3. The loss is `sdl_loss`.

    Ours: only the last layer is trained, where theirs is a whole TResNet-M end to end, which stored regions do not
    allow. So the rows are linear in the pooled feature.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.rows = nn.Linear(config.region_size, config.attentions * config.vector_size)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Rows:
        """Score C labels by their vectors on B photos by their regions.

        Raises:
            LesaError: the regions' or the vectors' size is not the model's.
        """
        check_sizes(self.config, regions_BRD, vectors_CE)
        rows_BME = self.rows(regions_BRD.mean(dim=1)).unflatten(1, (self.config.attentions, self.config.vector_size))
        by_row_BMC = rows_BME @ F.normalize(vectors_CE, dim=1).T
        return Rows(by_row_BMC.amax(dim=1), rows_BME)


def sdl_loss(out: Rows, vectors_SE: Tensor, targets_BS: Tensor) -> Tensor:
    """Rank a photo's P present labels above its absent ones, the more so the more its labels differ.

        L_rank[b] = w[b] / P sum over present p, absent n of log(1 + exp(s[n] - s[p]))
        w[b]      = 1 + sum over e of the variance over present p of v[p,e]
        L_reg[b]  = sum over e of the variance over m of A[b,m,e]
        L         = mean over b of 0.7 L_rank[b] + 0.3 L_reg[b]

    Variances are unbiased; that of a single vector is 0. A photo without a pair ranks nothing and stays in the mean.

    Source: Ben-Cohen et al., ICCV 2021, section 3, as their published program computes it (but for its factor of two).
    Ours: a label that is not annotated takes part in nothing, where theirs counts it as absent.
    """
    present_B = (targets_BS > 0).sum(dim=1).clamp(min=1)
    rank_B = diversity_weight(vectors_SE, targets_BS) * soft_ranking(out.scores_BC, targets_BS) / present_B
    rows = out.rows_BME.shape[1]
    spread_B = out.rows_BME.var(dim=1, correction=min(1, rows - 1)).sum(dim=1)
    return ((1 - SPREAD) * rank_B + SPREAD * spread_B).mean()


def diversity_weight(vectors_SE: Tensor, targets_BS: Tensor) -> Tensor:
    """Return 1 + the summed variance of each photo's present labels' unit vectors, `B`."""
    unit_SE = F.normalize(vectors_SE, dim=1)
    present_BS = (targets_BS > 0).to(unit_SE)
    count_B = present_BS.sum(dim=1)
    sum_BE = present_BS @ unit_SE
    # The sum of squared distances from the mean is P - |sum|^2 / P for P unit vectors.
    squares_B = count_B - sum_BE.square().sum(dim=1) / count_B.clamp(min=1)
    return 1 + squares_B / (count_B - 1).clamp(min=1)
