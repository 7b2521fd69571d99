"""Fast0Tag: a photo becomes a direction in word space, along which its labels rank first; neural and linear form."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from lesa.errors import LesaError
from lesa.learn.baselines.eszsl import RidgeRegression, RidgeSettings, add_ridge
from lesa.learn.model import Model, ModelConfig, Scores, check_sizes


@dataclass(frozen=True)
class Fast0TagSettings:
    """The settings of the neural form."""

    hidden: PositiveInt = 512
    """Number of units of each hidden layer."""


class Fast0Tag(Model):
    """Fast0Tag, the neural form.

        x[b]   = mean_r f[b,r]
        w[b]   = A3 relu(A2 relu(A1 x[b] + a1) + a2) + a3        the principal direction, with `hidden` units a layer
        s[b,c] = w[b] . v[c]                                     v: label vector of unit length

    Loss `ranknet`: log(1 + exp(s[n] - s[p])), the mean over a photo's pairs of a present and an absent label.

    Source: Zhang, Gong, Shah, "Fast Zero-Shot Image Tagging", CVPR 2016, section 4.

    Ours where the paper is silent: two hidden layers of one width, smaller than the paper's, and no dropout: weight
    decay and the best weights on validation take its place. The backbone is frozen.
    """

    settings_type = Fast0TagSettings
    settings: Fast0TagSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        hidden = self.settings.hidden
        self.direction = nn.Sequential(
            nn.Linear(config.region_size, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, config.vector_size),
        )

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their mean region."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        return Scores(self.direction(regions_BRD.mean(dim=1)) @ F.normalize(vectors_CE, dim=1).T)


class Fast0TagLinear(Model):
    """Fast0Tag, the linear form: each training photo's direction first, then its regression on the features.

        w[b]   = argmin over w of mean over present p, absent n of (w . (v[p] - v[n]) - 1)^2 + label_ridge |w|^2
        A, a   = argmin over A, a of sum_b |A' x[b] + a - w[b]|^2 + ridge |A|^2,      x[b] = mean_r f[b,r]
        s[b,c] = (A' x[b] + a) . v[c]                            v: label vector of unit length

    Source: Zhang, Gong, Shah, "Fast Zero-Shot Image Tagging", CVPR 2016, sections 3 and 4.

    Ours where the paper is silent: its ranking support-vector machine for w[b], a hinge over the pairs, is replaced by
    the least squares above, which have a closed form. The regression has a ridge and an intercept without one. Photos
    without a present or without an absent label have no direction and are left out.
    """

    settings_type = RidgeSettings
    settings: RidgeSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.regression = RidgeRegression(config.region_size, config.vector_size)
        self.direction = nn.Linear(config.region_size, config.vector_size)

    def accumulate(self, regions_BRD: Tensor, vectors_SE: Tensor, targets_BS: Tensor) -> None:
        """Find the photos' directions, and add the photos to the regression's sums."""
        check_sizes(self.config, regions_BRD, vectors_SE)
        paired_B = (targets_BS > 0).any(dim=1) & (targets_BS < 0).any(dim=1)
        directions = principal_directions(vectors_SE, targets_BS[paired_B], self.settings.label_ridge)
        self.regression.add(regions_BRD[paired_B].mean(dim=1), directions)

    def solve(self) -> None:
        """Set the map from feature to direction.

        Raises:
            LesaError: no photo has both a present and an absent label.
        """
        if not self.regression.get_buffer("count"):
            raise LesaError("no training photo has a present and an absent label, which 'fast0tag-linear' needs")
        weight_DE, mean_D, mean_E = self.regression.solve(self.settings.ridge)
        with torch.no_grad():
            self.direction.weight.copy_(weight_DE.T)
            self.direction.bias.copy_(mean_E - mean_D @ weight_DE)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their mean region."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        return Scores(self.direction(regions_BRD.mean(dim=1)) @ F.normalize(vectors_CE, dim=1).T)


def principal_directions(vectors_SE: Tensor, targets_BS: Tensor, ridge: float) -> Tensor:
    """Return w of each photo, `B, E`, from the moments of its labels' vectors: no pair is ever built.

    The mean over pairs of (v[p] - v[n])(v[p] - v[n])' is P + N - mp mn' - mn mp', with the means mp, mn and the second
    moments P, N of the present and the absent labels' vectors; that of v[p] - v[n] is mp - mn. The cost is
    B S E^2 + B E^3, whatever the number of pairs.
    """
    unit_SE = F.normalize(vectors_SE, dim=1)
    present_BS, absent_BS = (
        F.normalize(which.to(unit_SE.dtype), p=1, dim=1) for which in (targets_BS > 0, targets_BS < 0)
    )
    present_BE, absent_BE = present_BS @ unit_SE, absent_BS @ unit_SE
    second_BEE = torch.einsum("bs,se,sf->bef", present_BS + absent_BS, unit_SE, unit_SE)
    mixed_BEE = present_BE[:, :, None] * absent_BE[:, None, :]
    moment_BEE = second_BEE - mixed_BEE - mixed_BEE.transpose(1, 2)
    directions: Tensor = torch.linalg.solve(add_ridge(moment_BEE, ridge), present_BE - absent_BE)
    return directions
