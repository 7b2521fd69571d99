"""One attention per label: the comparison shows whether it costs anything to share a few attentions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesa.learn.model import Front, Model, ModelConfig, Scores, check_sizes, he_


class AttentionPerLabel(Model):
    """Each label has its own attention: a bilinear form of region and label vector.

        e[b,c,r]   = f[b,r] U v[c]
        alpha[b,c] = softmax over r of e[b,c]
        h[b,c]     = sum_r alpha[b,c,r] f[b,r]
        s[b,c]     = h[b,c] W v[c]             v: label vector of unit length

    As s[b,c] = sum_r alpha[b,c,r] (f[b,r] W v[c]), no h is ever built: the cost is a few tensors B x R x C, not
    B x C x D. With R = 196, B = 32 and float32 each takes 8.4 MB at C = 336 and 180 MB at C = 7,186; training holds
    about five of them.

    Source: Huynh & Elhamifar, A Shared Multi-Attention Framework for Multi-Label Zero-Shot Learning, CVPR 2020, section
    4 (the baseline "one attention per label"), with the attention of Kim, Jun & Zhang, Bilinear Attention Networks,
    NeurIPS 2018, section 3.

    Ours where the papers are silent: U has full rank, where Kim et al. factorise it, and there is one glimpse; U starts
    at zero, so that every attention starts uniform (from He's initialisation it learns less); W and the front (`front`)
    as LESA's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.front:
            self.front = Front(config.region_size, config.grid)
        self.u = nn.Parameter(torch.zeros(config.region_size, config.vector_size))
        self.w = nn.Parameter(torch.empty(config.region_size, config.vector_size))
        he_(self.w, fan_in=config.region_size)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their regions.

        Raises:
            LesaError: the regions' or the vectors' size is not the model's.
        """
        check_sizes(self.config, regions_BRD, vectors_CE)
        if self.front is not None:
            regions_BRD = self.front(regions_BRD)
        vectors_EC = F.normalize(vectors_CE, dim=1).T
        attention_BRC = (regions_BRD @ (self.u @ vectors_EC)).softmax(dim=1)
        by_region_BRC = regions_BRD @ (self.w @ vectors_EC)
        return Scores((attention_BRC * by_region_BRC).sum(dim=1))
