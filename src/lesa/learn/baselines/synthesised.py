"""Synthesised classifiers: a smooth map from label vectors to linear classifiers, learned from the seen labels."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from lesa.learn.baselines.eszsl import RidgeRegression, add_ridge
from lesa.learn.model import Model, ModelConfig, Scores, check_sizes


@dataclass(frozen=True)
class SynthesisedSettings:
    """The settings of synthesised classifiers."""

    gamma: PositiveFloat = 2.0
    """The kernel's inverse width: similarity falls to exp(-gamma) at a squared distance of one."""
    kernel_ridge: PositiveFloat = 0.3
    """What is added to the kernel's diagonal: how far the map may miss the classifiers of the seen labels."""
    ridge: PositiveFloat = 1e4
    """Weight of the squared norm of a seen label's classifier."""
    unit_classifiers: bool = True
    """Whether the seen labels' classifiers are brought to unit length, so that frequent labels do not dominate."""
    classes: bool = False
    """Whether the classes that the backbone knows by name are examples, too, as far as they have a label vector. Then
    unseen labels may be such classes: say so beside the results."""


class Synthesised(Model):
    """Each seen label's ridge classifier is an example of a map from label vectors to classifiers: kernel regression.

        x[b]    = mean_r f[b,r] - mean of that over the training photos
        g[s]    = (X'X + ridge I)^-1 X' (y[s] - mean of y[s])            divided by its norm (`unit_classifiers`)
        k(v, w) = exp(-gamma |v - w|^2)                                  v, w: label vectors of unit length
        phi(v)  = k(v, V) (k(V, V) + kernel_ridge I)^-1                  V: the vectors of the A examples
        s[b,c]  = x[b] . sum over a of phi(v[c])[a] g[a]

    with the rows x[b] in X and the targets +1, -1 (0: not annotated) in y. It is ESZSL's compatibility with a curved
    map in place of the straight one. A label far from all examples gets a classifier near zero.

    With `classes` the K classes that the backbone knows by name are examples beside the S seen labels, A = S + K: g is
    then the class's row in the backbone's classifier, less the mean of all rows, divided by its norm. A class without a
    label vector is left out.

    Source: the family of Elhoseiny, Saleh & Elgammal, "Write a Classifier", ICCV 2013, and of Changpinyo, Chao, Gong &
    Sha, "Synthesized Classifiers for Zero-Shot Learning", CVPR 2016.

    Ours: kernel ridge regression with a Gaussian kernel on ridge classifiers of unit length, where the papers learn
    Gaussian processes or phantom classes.
    """

    settings_type = SynthesisedSettings
    settings: SynthesisedSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.register_buffer("mean_D", torch.zeros(config.region_size))

    def begin(self, vectors_SE: Tensor) -> None:
        """Keep the examples' vectors at unit length, and make room for their classifiers."""
        self.regression = RidgeRegression(self.config.region_size, len(vectors_SE))
        rows_KD = vectors_SE.new_zeros(0, self.config.region_size)
        anchors_AE = vectors_SE
        if self.known is not None:
            rows_KD = F.normalize(self.known.rows_KD, dim=1)
            anchors_AE = torch.cat([vectors_SE, self.known.vectors_KE])
        self.register_buffer("rows_KD", rows_KD)
        self.register_buffer("anchors_AE", F.normalize(anchors_AE, dim=1))
        # An optimiser wants at least one parameter. No step changes it: the map has a closed form.
        map_AD = torch.zeros(len(anchors_AE), self.config.region_size)
        self.map_AD = torch.nn.Parameter(map_AD, requires_grad=False)

    def accumulate(self, regions_BRD: Tensor, vectors_SE: Tensor, targets_BS: Tensor) -> None:
        """Add a batch to the sums of the seen labels' ridge regressions."""
        check_sizes(self.config, regions_BRD, vectors_SE)
        self.regression.add(regions_BRD.mean(dim=1), targets_BS)

    def solve(self) -> None:
        """Set the map from a label's similarities to its classifier, and the mean of the features."""
        weight_DS, mean_D, _ = self.regression.solve(self.settings.ridge)
        classifiers_SD = weight_DS.T
        if self.settings.unit_classifiers:
            classifiers_SD = F.normalize(classifiers_SD, dim=1)
        examples_AD = torch.cat([classifiers_SD, self.get_buffer("rows_KD").double()])
        anchors_AE = self.get_buffer("anchors_AE").double()
        kernel_AA = add_ridge(self._kernel(anchors_AE, anchors_AE), self.settings.kernel_ridge)
        self.map_AD.copy_(torch.linalg.solve(kernel_AA, examples_AD))
        self.get_buffer("mean_D").copy_(mean_D)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their mean region."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        similarity_CA = self._kernel(F.normalize(vectors_CE, dim=1), self.get_buffer("anchors_AE"))
        pooled_BD = regions_BRD.mean(dim=1) - self.get_buffer("mean_D")
        return Scores(pooled_BD @ (similarity_CA @ self.map_AD).T)

    def _kernel(self, vectors_CE: Tensor, anchors_AE: Tensor) -> Tensor:
        """Return k, `C, A`, of unit vectors: |v - w|^2 = 2 - 2 v . w."""
        return torch.exp(-self.settings.gamma * (2 - 2 * vectors_CE @ anchors_AE.T))
