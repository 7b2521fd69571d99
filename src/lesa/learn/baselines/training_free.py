"""The control without training: the cosine of the mean region and a label's vector, if both are in one space."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesa.errors import LesaError
from lesa.learn.model import Model, ModelConfig, Scores, check_sizes


class TrainingFree(Model):
    """The cosine of the mean region and the label vector; nothing is trained.

        s[b,c] = cosine of mean_r f[b,r] and v[c]

    It is zero-shot tagging as CLIP does it (Radford et al., ICML 2021, section 3.1), on the mean of the regions. It
    passes through the training loop with loss `closed-form` in one epoch; there is nothing to sum up or to solve.

    Raises:
        LesaError: regions and label vectors have different sizes, so they are not in one space.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.region_size != config.vector_size:
            raise LesaError(
                f"the model 'training-free' needs regions and label vectors in one space, but regions have "
                f"{config.region_size} numbers and vectors {config.vector_size}: extract the regions with a CLIP-like "
                "backbone and take the label vectors of its text encoder"
            )
        # An optimiser needs at least one parameter. This factor is frozen and changes no ranking.
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def accumulate(self, regions_BRD: Tensor, vectors_SE: Tensor, targets_BS: Tensor) -> None:
        """Learn nothing."""

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their mean region."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        pooled_BD = F.normalize(regions_BRD.mean(dim=1), dim=1)
        return Scores(self.scale * pooled_BD @ F.normalize(vectors_CE, dim=1).T)
