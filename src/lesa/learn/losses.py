"""The losses, a function each: ranking, relevance, diversity, distribution (paper, section 3.3), and contrastive.

Targets are +1 present, -1 absent, 0 not annotated; a label that is not annotated takes part in nothing. The cost
follows the K present labels of a batch (K x S), never S x S: a photo has about ten of them.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lesa.learn.model import Output

DiversityOf = Literal["logits", "probabilities"]


class LossTerms(NamedTuple):
    """The published loss and its four parts, before their weights."""

    rank: Tensor
    distribution: Tensor
    relevance: Tensor
    diversity: Tensor
    total: Tensor


def lesa_loss(
    out: Output,
    targets_BS: Tensor,
    *,
    distribution: float = 0.1,
    relevance: float = 0.001,
    diversity: float = 0.01,
    diversity_of: DiversityOf = "logits",
) -> LossTerms:
    """L = L_rank + 0.1 L_dist + 0.001 L_rel + 0.01 L_div, over the S seen labels.

    Args:
        out: the model's output for the seen labels.
        targets_BS: +1, -1 or 0.
        distribution: weight of the distribution loss.
        relevance: weight of the relevance loss.
        diversity: weight of the diversity loss.
        diversity_of: "logits", as the authors' program does, or "probabilities", as the paper writes.
    """
    rank = ranking_loss(out.scores_BC, targets_BS)
    spread = distribution_loss(out.by_attention_BMC, targets_BS)
    gain = relevance_loss(out.scores_BC, out.uniform_scores_BC, targets_BS)
    overlap = diversity_loss(out.logits_BMR if diversity_of == "logits" else out.attention_BMR)
    total = rank + distribution * spread + relevance * gain + diversity * overlap
    return LossTerms(rank, spread, gain, overlap, total)


def ranking_loss(scores_BS: Tensor, targets_BS: Tensor) -> Tensor:
    """Every present label p should stand a margin of one above every absent label n.

        L[b] = sum over p, n of max(0, 1 + s[n] - s[p]) / (number of violating pairs + 1e-8);  L = mean over b

    A photo without a pair counts 0 and stays in the mean.
    """
    others_KS, own_K1, absent_KS, photo_K = _pairs(scores_BS, targets_BS)
    hinge_KS = F.relu(1 + others_KS - own_K1) * absent_KS
    sum_B = _by_photo(hinge_KS.sum(dim=1), photo_K, len(scores_BS))
    violating_B = _by_photo((hinge_KS > 0).sum(dim=1, dtype=scores_BS.dtype), photo_K, len(scores_BS))
    return (sum_B / (violating_B + 1e-8)).mean()


def _pairs(scores_BS: Tensor, targets_BS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return, for each of the K present labels of a batch, what ranking losses compare.

    Returns:
        The scores of all labels of its photo `K, S`, its own score `K, 1`, which labels are absent `K, S`, and the
        photo's place in the batch `K`.
    """
    photo_K, label_K = (targets_BS > 0).nonzero(as_tuple=True)
    others_KS = scores_BS.index_select(0, photo_K)
    return others_KS, others_KS.gather(1, label_K[:, None]), (targets_BS < 0).index_select(0, photo_K), photo_K


def _by_photo(values_K: Tensor, photo_K: Tensor, photos: int) -> Tensor:
    """Return the sum of the present labels' values in each photo of the batch, `B`."""
    return values_K.new_zeros(photos).index_add(0, photo_K, values_K)


def relevance_loss(scores_BS: Tensor, uniform_scores_BS: Tensor, targets_BS: Tensor) -> Tensor:
    """The selected attention should beat the uniform one: higher for a present label, lower for an absent one.

    L = sum over b and c of max(0, -y[b,c] (s[b,c] - g[b,c]))      a sum over the batch, not a mean
    """
    return F.relu(-targets_BS.to(scores_BS.dtype) * (scores_BS - uniform_scores_BS)).sum()


def diversity_loss(logits_BMR: Tensor) -> Tensor:
    """The attentions should look at different regions: the Frobenius norm of their cosines over the whole batch.

    Differs from the paper, as the authors' program does: it is taken of the logits, not of the probabilities.
    """
    unit_BMR = F.normalize(logits_BMR, dim=2)
    cosines_BMM = unit_BMR @ unit_BMR.transpose(1, 2)
    off_diagonal = 1 - torch.eye(cosines_BMM.shape[1], dtype=cosines_BMM.dtype, device=cosines_BMM.device)
    norm: Tensor = torch.linalg.vector_norm(cosines_BMM * off_diagonal)
    return norm


def distribution_loss(by_attention_BMS: Tensor, targets_BS: Tensor) -> Tensor:
    """The present labels should spread over the attentions.

    P[b,m,c] = softmax over m;  q[b,m] = sum over present c of P[b,m,c];  L = mean over b and m of q^2
    """
    photo_K, label_K = (targets_BS > 0).nonzero(as_tuple=True)
    choice_KM = by_attention_BMS[photo_K, :, label_K].softmax(dim=1)
    q_BM = by_attention_BMS.new_zeros(by_attention_BMS.shape[:2]).index_add(0, photo_K, choice_KM)
    return q_BM.square().mean()


def contrastive_loss(scores_BS: Tensor, targets_BS: Tensor) -> Tensor:
    """Cross-entropy of a photo's present labels against all its annotated labels (recipe `contrastive`, ours).

    L[b] = mean over present p of (log sum over annotated c of exp s[c]) - s[p]
    L    = mean over the photos that have a present label; 0 where none has
    """
    present_BS = targets_BS > 0
    labelled_B = present_BS.any(dim=1)
    scores, targets, present = scores_BS[labelled_B], targets_BS[labelled_B], present_BS[labelled_B]
    log_share = scores.masked_fill(targets == 0, -torch.inf).log_softmax(dim=1)
    per_photo = -torch.where(present, log_share, 0).sum(dim=1) / present.sum(dim=1)
    return per_photo.sum() / labelled_B.sum().clamp(min=1)


def ranknet_loss(scores_BS: Tensor, targets_BS: Tensor) -> Tensor:
    """Every present label p should stand above every absent label n (Zhang et al., CVPR 2016, section 4).

        L[b] = mean over p, n of log(1 + exp(s[n] - s[p]));  L = mean over b

    A photo without a pair counts 0 and stays in the mean.
    """
    pairs_B = (targets_BS > 0).sum(dim=1) * (targets_BS < 0).sum(dim=1)
    return (soft_ranking(scores_BS, targets_BS) / pairs_B.clamp(min=1)).mean()


def soft_ranking(scores_BS: Tensor, targets_BS: Tensor) -> Tensor:
    """Return each photo's sum of log(1 + exp(s[n] - s[p])) over its pairs of a present p and an absent n, `B`."""
    others_KS, own_K1, absent_KS, photo_K = _pairs(scores_BS, targets_BS)
    return _by_photo((F.softplus(others_KS - own_K1) * absent_KS).sum(dim=1), photo_K, len(scores_BS))


def warp_loss(scores_BS: Tensor, targets_BS: Tensor) -> Tensor:
    """The ranking loss with more weight at the top: WARP (Weston et al., IJCAI 2011; Gong et al., ICLR 2014).

        r[p] = number of absent labels n with 1 + s[n] - s[p] > 0;  w(r) = (1 + 1/2 + ... + 1/r) / r
        L[b] = mean over p of w(r[p]) sum over n of max(0, 1 + s[n] - s[p]);  L = mean over b

    Ours: the rank is counted, where the papers estimate it from how many labels they drew before one violated; the
    mean over the present labels, where they sum. A photo without a present label counts 0 and stays in the mean.
    """
    others_KS, own_K1, absent_KS, photo_K = _pairs(scores_BS, targets_BS)
    hinge_KS = F.relu(1 + others_KS - own_K1) * absent_KS
    weighted_K = _rank_weights(scores_BS)[(hinge_KS > 0).sum(dim=1)] * hinge_KS.sum(dim=1)
    return (_by_photo(weighted_K, photo_K, len(scores_BS)) / (targets_BS > 0).sum(dim=1).clamp(min=1)).mean()


def _rank_weights(scores_BS: Tensor) -> Tensor:
    """Return (1 + 1/2 + ... + 1/r) / r for the ranks r = 0 .. S, zero at r = 0."""
    ranks_S = torch.arange(1, scores_BS.shape[1] + 1, dtype=scores_BS.dtype, device=scores_BS.device)
    return F.pad(ranks_S.reciprocal().cumsum(dim=0) / ranks_S, (1, 0))


def logistic_loss(scores_BS: Tensor, targets_BS: Tensor) -> Tensor:
    """Binary cross-entropy of each label for itself: logistic regression for many labels.

        L[b] = sum over annotated c of log(1 + exp(-y[b,c] s[b,c]));  L = mean over b

    A sum over the labels, so that a label's weight in a photo does not depend on how many others are annotated.
    """
    loss_BS = F.softplus(-targets_BS.to(scores_BS.dtype) * scores_BS) * (targets_BS != 0)
    return loss_BS.sum(dim=1).mean()


SCORE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "contrastive": contrastive_loss,
    "logistic": logistic_loss,
    "ranking": ranking_loss,
    "ranknet": ranknet_loss,
    "warp": warp_loss,
}
"""The losses that need nothing but scores and targets."""
