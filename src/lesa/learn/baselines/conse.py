"""CONSE: the label vectors of the most probable seen labels, averaged, stand for the photo."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesa.learn.model import Model, ModelConfig, Scores, check_sizes


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

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.classifier = nn.Linear(config.region_size, config.seen_labels)
        self.register_buffer("seen_vectors", torch.zeros(config.seen_labels, config.vector_size))

    def begin(self, vectors_SE: Tensor) -> None:
        """Keep the seen labels' vectors at unit length."""
        self.get_buffer("seen_vectors").copy_(F.normalize(vectors_SE, dim=1))

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors; in training mode the S seen labels by the classifier."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        logits_BS = self.classifier(regions_BRD.mean(dim=1))
        if self.training:
            return Scores(logits_BS)
        return Scores(self.embed(logits_BS) @ F.normalize(vectors_CE, dim=1).T)

    def embed(self, logits_BS: Tensor) -> Tensor:
        """Return q at unit length, `B, E`, from the logits of the seen labels."""
        top = logits_BS.topk(min(self.config.top_labels, self.config.seen_labels), dim=1)
        # The shares p / sum of p from logarithms: a photo whose probabilities are all tiny still has a direction.
        shares_BT = F.logsigmoid(top.values).softmax(dim=1)
        vectors_BTE = self.get_buffer("seen_vectors")[top.indices]
        return F.normalize((shares_BT[:, None] @ vectors_BTE)[:, 0], dim=1)
