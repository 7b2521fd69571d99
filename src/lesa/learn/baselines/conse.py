"""CONSE: the label vectors of the most probable seen labels, averaged, represent the photo."""

from dataclasses import dataclass

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from lesa.learn.model import Model, Scores, check_sizes


@dataclass(frozen=True)
class CONSESettings:
    """The settings of CONSE."""

    top_labels: PositiveInt = 10
    """T, the number of seen labels whose vectors represent a photo."""


class CONSE(Model):
    """CONSE: a convex combination of semantic embeddings.

        x[b]   = mean_r f[b,r]
        p[b,s] = sigmoid(k[s] . x[b] + a[s])                     a classifier of the S seen labels
        q[b]   = sum over the T largest p of p[b,s] v[s] / sum over them of p[b,s]
        s[b,c] = cosine of q[b] and v[c]                         v: label vector of unit length

    While it trains it returns the classifier's logits (loss `logistic`); afterwards the cosines, for any labels.

    Source: Norouzi, Mikolov, Bengio, Singer, Shlens, Frome, Corrado, Dean, "Zero-Shot Learning by Convex Combination
    of Semantic Embeddings", ICLR 2014, section 3.

    Ours where the paper is silent: a photo has many labels here, so the paper's softmax over exclusive classes is a
    logistic classifier for each label, on the mean region.
    """

    settings_type = CONSESettings
    settings: CONSESettings

    def begin(self, vectors_SE: Tensor) -> None:
        """Make the classifier of the seen labels, and keep their vectors at unit length."""
        self.classifier = nn.Linear(self.config.region_size, len(vectors_SE))
        self.register_buffer("seen_vectors", F.normalize(vectors_SE, dim=1))

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors; in training mode the S seen labels by the classifier."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        logits_BS = self.classifier(regions_BRD.mean(dim=1))
        if self.training:
            return Scores(logits_BS)
        return Scores(self.embed(logits_BS) @ F.normalize(vectors_CE, dim=1).T)

    def embed(self, logits_BS: Tensor) -> Tensor:
        """Return q at unit length, `B, E`, from the logits of the seen labels."""
        top = logits_BS.topk(min(self.settings.top_labels, logits_BS.shape[1]), dim=1)
        # The shares p / sum of p from logarithms: a photo whose probabilities are all tiny still has a direction.
        shares_BT = F.logsigmoid(top.values).softmax(dim=1)
        vectors_BTE = self.get_buffer("seen_vectors")[top.indices]
        return F.normalize((shares_BT[:, None] @ vectors_BTE)[:, 0], dim=1)
