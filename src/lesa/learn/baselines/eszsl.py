"""ESZSL: a bilinear compatibility of mean region and label vector, in closed form; and the ridge regression in it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from lesa.learn.model import Model, ModelConfig, Scores, check_sizes


class RidgeRegression(nn.Module):
    """Ridge regression of targets `N, E` on features `N, D`, from sums that are added up batch by batch in float64."""

    def __init__(self, features: int, targets: int) -> None:
        super().__init__()
        shapes = {
            "count": (),
            "feature_sum_D": (features,),
            "target_sum_E": (targets,),
            "gram_DD": (features, features),
            "cross_DE": (features, targets),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def add(self, features_BD: Tensor, targets_BE: Tensor) -> None:
        """Add a batch to the sums."""
        x_BD, t_BE = features_BD.double(), targets_BE.double()
        self.get_buffer("count").add_(len(x_BD))
        self.get_buffer("feature_sum_D").add_(x_BD.sum(dim=0))
        self.get_buffer("target_sum_E").add_(t_BE.sum(dim=0))
        self.get_buffer("gram_DD").add_(x_BD.T @ x_BD)
        self.get_buffer("cross_DE").add_(x_BD.T @ t_BE)

    def solve(self, ridge: float, guess_DE: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights `D, E` for centred features, and the means of features `D` and targets `E`, in float64.

        Args:
            ridge: weight of the weights' squared distance from zero, or from the best multiples of the guess.
            guess_DE: for each target, the direction in which its weights are thought to lie; a multiple is never
                negative.
        """
        count = self.get_buffer("count").clamp(min=1)
        mean_D, mean_E = self.get_buffer("feature_sum_D") / count, self.get_buffer("target_sum_E") / count
        gram_DD = self.get_buffer("gram_DD") - count * torch.outer(mean_D, mean_D)
        cross_DE = self.get_buffer("cross_DE") - count * torch.outer(mean_D, mean_E)
        if guess_DE is None:
            guess_DE = torch.zeros_like(cross_DE)
        image_DE = gram_DD @ guess_DE
        energy_E = (guess_DE * image_DE).sum(dim=0).clamp(min=torch.finfo(gram_DD.dtype).tiny)
        start_DE = guess_DE * ((guess_DE * cross_DE).sum(dim=0) / energy_E).clamp(min=0)
        weight_DE = start_DE + torch.linalg.solve(add_ridge(gram_DD, ridge), cross_DE - gram_DD @ start_DE)
        return weight_DE, mean_D, mean_E


@dataclass(frozen=True)
class RidgeSettings:
    """The settings of a method with two ridges."""

    ridge: PositiveFloat = 1.0
    """Weight of the squared norm on the side of the regions."""
    label_ridge: PositiveFloat = 1.0
    """Weight of the squared norm on the side of the label vectors."""


class ESZSL(Model):
    """ESZSL: an embarrassingly simple approach to zero-shot learning.

        x[b]   = mean_r f[b,r] - mean of that over the training photos
        W      = (X'X + ridge I)^-1  X' Y V  (V'V + label_ridge I)^-1
        s[b,c] = x[b] W . v[c]                                          v: label vector of unit length

    with the rows x[b] in X, the S seen labels' vectors in V and the targets +1, -1 in Y. W minimises the squared
    error |X W V' - Y|^2 with weights on |W V'|^2, |X W|^2 and, by their product, |W|^2.

    Source: Romera-Paredes & Torr, "An embarrassingly simple approach to zero-shot learning", ICML 2015, section 3
    (their gamma and lambda are `ridge` and `label_ridge`).

    Ours where the paper is silent: a photo has many labels, so several entries of a row of Y are +1; a target that is
    not annotated is 0; the features are centred, so that the photos' mean, which carries little but how rare most
    labels are, scores nothing. There is no intercept, as in the paper.
    """

    settings_type = RidgeSettings
    settings: RidgeSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D, E = config.region_size, config.vector_size
        self.regression = RidgeRegression(D, E)
        self.register_buffer("vectors_gram_EE", torch.zeros(E, E, dtype=torch.float64))
        self.register_buffer("mean_D", torch.zeros(D))
        self.w = nn.Parameter(torch.zeros(D, E))

    def begin(self, vectors_SE: Tensor) -> None:
        """Keep V'V of the seen labels."""
        unit_SE = F.normalize(vectors_SE.double(), dim=1)
        self.get_buffer("vectors_gram_EE").copy_(unit_SE.T @ unit_SE)

    def accumulate(self, regions_BRD: Tensor, vectors_SE: Tensor, targets_BS: Tensor) -> None:
        """Add a batch's X'X and X'YV: a regression whose targets are the signed sums of label vectors."""
        check_sizes(self.config, regions_BRD, vectors_SE)
        unit_SE = F.normalize(vectors_SE, dim=1)
        self.regression.add(regions_BRD.mean(dim=1), targets_BS.to(unit_SE.dtype) @ unit_SE)

    def solve(self) -> None:
        """Set W and the mean of the features."""
        weight_DE, mean_D, _ = self.regression.solve(self.settings.ridge)
        gram_EE = add_ridge(self.get_buffer("vectors_gram_EE"), self.settings.label_ridge)
        with torch.no_grad():
            self.w.copy_(torch.linalg.solve(gram_EE, weight_DE.T).T)
            self.get_buffer("mean_D").copy_(mean_D)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their mean region."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        pooled_BD = regions_BRD.mean(dim=1) - self.get_buffer("mean_D")
        return Scores(pooled_BD @ self.w @ F.normalize(vectors_CE, dim=1).T)


def add_ridge(gram: Tensor, ridge: float) -> Tensor:
    """Return Gram matrices `..., E, E` with the ridge on their diagonals."""
    return gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
