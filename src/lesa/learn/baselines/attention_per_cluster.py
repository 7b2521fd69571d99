"""One attention per cluster of labels: LESA, but a label's vector decides its attention before training."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from lesa.errors import LesaError
from lesa.learn.model import Encoded, Output, SharedMultiAttention

ROUNDS = 100


@dataclass(frozen=True)
class ClusterOutput(Output):
    """The output of a model whose labels have a fixed attention."""

    cluster_C: Tensor
    """Each label's attention, 0 to M - 1, the same on every photo."""

    @property
    def winner_BC(self) -> Tensor:
        """The attention that each label's score is taken from."""
        return self.cluster_C.expand_as(self.scores_BC)


class AttentionPerCluster(SharedMultiAttention):
    """M attentions as in LESA, but a label takes the code of its cluster, not the code that suits it best.

        k[c]   = argmin over m of |v[c] - centroid[m]|      k-means of the S seen labels' vectors
        s[b,c] = z[b,k[c]] . v[c]                           z: LESA's codes, v: label vector of unit length

    The centroids are found once, before training; an unseen label joins the nearest one. `model.selection` has no
    effect.

    Source: Huynh & Elhamifar, A Shared Multi-Attention Framework for Multi-Label Zero-Shot Learning, CVPR 2020, section
    4 (the baseline "one attention per cluster").

    Ours where the paper is silent: k-means of the unit vectors from M seen labels that a fixed seed draws; W is one for
    all clusters, as it is in LESA.
    """

    exportable = False
    centroids_ME: Tensor

    def begin(self, vectors_SE: Tensor) -> None:
        """Find the clusters of the seen labels.

        Raises:
            LesaError: there are fewer seen labels than attentions.
        """
        centroids_ME = k_means(F.normalize(vectors_SE, dim=1), self.config.attentions)
        self.register_buffer("centroids_ME", centroids_ME.to(vectors_SE))

    def score_points(self, encoded: Encoded, points_CE: Tensor) -> ClusterOutput:
        """Score C labels, whose points are their unit vectors; `by_attention_BMC` is that of all attentions."""
        out = super().score_points(encoded, points_CE)
        cluster_C = nearest(points_CE, self.centroids_ME)
        scores_BC = out.by_attention_BMC[:, cluster_C, torch.arange(len(cluster_C), device=cluster_C.device)]
        kept = {field.name: getattr(out, field.name) for field in fields(Output)}
        return ClusterOutput(**{**kept, "scores_BC": scores_BC}, cluster_C=cluster_C)


def k_means(points_NE: Tensor, clusters: int) -> Tensor:
    """Return centroids `clusters, E` by Lloyd's rounds in double precision; a pure function of its arguments.

    Raises:
        LesaError: there are fewer points than clusters.
    """
    if len(points_NE) < clusters:
        raise LesaError(f"model.attentions is {clusters}, but there are {len(points_NE)} seen labels to cluster")
    points = points_NE.double()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0)).to(points.device)
    centroids_ME = points[order[:clusters]]
    for _ in range(ROUNDS):
        members_MN = F.one_hot(nearest(points, centroids_ME), clusters).to(points).T
        size_M1 = members_MN.sum(dim=1, keepdim=True)
        means_ME = torch.where(size_M1 > 0, members_MN @ points / size_M1.clamp(min=1), centroids_ME)
        if torch.equal(means_ME, centroids_ME):
            break
        centroids_ME = means_ME
    return centroids_ME


def nearest(points_NE: Tensor, centroids_ME: Tensor) -> Tensor:
    """Return the index of the centroid that is nearest to each point, `N`."""
    # |p - c|^2 = |p|^2 - 2 p . c + |c|^2, and |p|^2 is the same for every c.
    return (centroids_ME.square().sum(dim=1) - 2 * points_NE @ centroids_ME.T).argmin(dim=1)
