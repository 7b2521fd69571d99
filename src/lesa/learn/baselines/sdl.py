"""SDL: a photo as several principal vectors in word space, trained with a loss that rewards diverse ones."""

import torch.nn.functional as F
from torch import Tensor, nn

from lesa.learn.model import CodeScores, Model, ModelConfig, check_sizes


class SDL(Model):
    """The pooled photo maps to M rows in word space; a label's score is that of its best row.

        A[b]   = W mean_r f[b,r] + bias        M x E, M = `attentions` (7 in the paper on NUS-WIDE)
        s[b,c] = max_m A[b,m] . v[c]           v: label vector of unit length

    Source: Ben-Cohen, Zamir, Ben-Baruch, Friedman & Zelnik-Manor, Semantic Diversity Learning for Zero-Shot Multi-label
    Classification, ICCV 2021, section 3. The loss is `sdl` (`lesa.learn.losses`).

    Ours: only the last layer is trained; theirs is a whole TResNet-M, trained end to end, which stored regions do not
    allow. So the rows are linear in the pooled feature.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.rows = nn.Linear(config.region_size, config.attentions * config.vector_size)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> CodeScores:
        """Score C labels by their vectors on B photos by their regions.

        Raises:
            LesaError: the regions' or the vectors' size is not the model's.
        """
        check_sizes(self.config, regions_BRD, vectors_CE)
        rows_BME = self.rows(regions_BRD.mean(dim=1)).unflatten(1, (self.config.attentions, self.config.vector_size))
        by_row_BMC = rows_BME @ F.normalize(vectors_CE, dim=1).T
        return CodeScores(by_row_BMC.amax(dim=1), rows_BME)
