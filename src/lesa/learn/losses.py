"""The losses, one function each: ranking, relevance, diversity, distribution (paper, section 3.3), and contrastive.

Targets are +1 present, -1 absent, 0 not annotated; a label that is not annotated takes part in nothing. The cost
is proportional to K x S for the K present labels of a batch, never to S x S: a photo has about ten of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lesa.errors import LesaError, did_you_mean
from lesa.learn.model import CodeScores, Output, Scores

DiversityOf = Literal["logits", "probabilities"]
CLOSED_FORM = "closed-form"
"""The kind of a loss that no step minimises: the model sums up the data and solves once."""
SDL_SPREAD = 0.3
"""Weight of the variance in SDL's loss: the default of the authors' program; their COCO script takes 0.01."""


@dataclass(frozen=True)
class LossConfig:
    """The quantity that training minimises. The defaults are the paper's.

    Raises:
        LesaError: there is no loss of that kind.
    """

    kind: str = "lesa"
    """A name of `LOSSES`: `lesa` is the published loss of four terms; or `closed-form`, where the model sums up the
    data and solves once."""
    distribution: float = 0.1
    """Weight of the distribution loss (kind `lesa`)."""
    relevance: float = 0.001
    """Weight of the relevance loss (kind `lesa`)."""
    diversity: float = 0.01
    """Weight of the diversity loss (kind `lesa`)."""
    diversity_of: DiversityOf = "logits"
    """What the diversity loss compares: logits as the authors' program does, or probabilities as the paper writes."""

    def __post_init__(self) -> None:
        kinds = [*LOSSES, CLOSED_FORM]
        if self.kind not in kinds:
            raise LesaError(f"loss.kind is {self.kind!r}; {did_you_mean(self.kind, kinds)}")

    @property
    def is_closed_form(self) -> bool:
        """Whether no step minimises it."""
        return self.kind == CLOSED_FORM


Loss = Callable[[LossConfig, Scores, Tensor, Tensor], dict[str, Tensor]]
"""config, the model's output for the seen labels, `vectors_SE`, `targets_BS` -> terms; `total` is minimised."""


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
    """Every present label p should score at least one more than every absent label n.

        L[b] = sum over p, n of max(0, 1 + s[n] - s[p]) / (number of violating pairs + 1e-8);  L = mean over b

    A photo without a pair adds 0 and stays in the mean.
    """
    others_KS, own_K1, absent_KS, photo_K = _pairs(scores_BS, targets_BS)
    hinge_KS = F.relu(1 + others_KS - own_K1) * absent_KS
    sum_B = _by_photo(hinge_KS.sum(dim=1), photo_K, len(scores_BS))
    violating_B = _by_photo((hinge_KS > 0).sum(dim=1, dtype=scores_BS.dtype), photo_K, len(scores_BS))
    return (sum_B / (violating_B + 1e-8)).mean()


def _pairs(scores_BS: Tensor, targets_BS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the scores that ranking losses compare, for each of the K present labels of a batch.

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

    Differs from the paper, as the authors' program does: it compares the logits, not the probabilities.
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
    """Every present label p should score more than every absent label n (Zhang et al., CVPR 2016, section 4).

        L[b] = mean over p, n of log(1 + exp(s[n] - s[p]));  L = mean over b

    A photo without a pair adds 0 and stays in the mean.
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

    Ours: the rank is counted; the papers estimate it from the number of labels that they drew before one violated.
    Ours is the mean over the present labels; theirs is the sum. A photo without a present label adds 0 and stays in the
    mean.
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

    A sum over the labels, so that a label's weight in a photo does not depend on the number of annotated labels.
    """
    loss_BS = F.softplus(-targets_BS.to(scores_BS.dtype) * scores_BS) * (targets_BS != 0)
    return loss_BS.sum(dim=1).mean()


def sdl_loss(out: CodeScores, vectors_SE: Tensor, targets_BS: Tensor) -> Tensor:
    """Rank a photo's P present labels above its absent ones; a photo weighs more if its labels differ more.

        L_rank[b] = w[b] / P sum over present p, absent n of log(1 + exp(s[n] - s[p]))
        w[b]      = 1 + sum over e of the variance over present p of v[p,e]
        L_reg[b]  = sum over e of the variance over m of A[b,m,e]               A: the photo's M points
        L         = mean over b of 0.7 L_rank[b] + 0.3 L_reg[b]

    Variances are unbiased; that of a single vector is 0. A photo without a pair ranks nothing and stays in the mean.

    Source: Ben-Cohen et al., ICCV 2021, section 3, as their published program computes it (but for its factor of two).
    Ours: a label that is not annotated takes part in nothing; in their program it is absent.
    """
    present_B = (targets_BS > 0).sum(dim=1).clamp(min=1)
    rank_B = diversity_weight(vectors_SE, targets_BS) * soft_ranking(out.scores_BC, targets_BS) / present_B
    points = out.codes_BME.shape[1]
    spread_B = out.codes_BME.var(dim=1, correction=min(1, points - 1)).sum(dim=1)
    return ((1 - SDL_SPREAD) * rank_B + SDL_SPREAD * spread_B).mean()


def diversity_weight(vectors_SE: Tensor, targets_BS: Tensor) -> Tensor:
    """Return 1 + the summed variance of each photo's present labels' unit vectors, `B`."""
    unit_SE = F.normalize(vectors_SE, dim=1)
    present_BS = (targets_BS > 0).to(unit_SE)
    count_B = present_BS.sum(dim=1)
    sum_BE = present_BS @ unit_SE
    # The sum of squared distances from the mean is P - |sum|^2 / P for P unit vectors.
    squares_B = count_B - sum_BE.square().sum(dim=1) / count_B.clamp(min=1)
    return 1 + squares_B / (count_B - 1).clamp(min=1)


def _published(config: LossConfig, out: Scores, vectors_SE: Tensor, targets_BS: Tensor) -> dict[str, Tensor]:
    if not isinstance(out, Output):
        raise LesaError("the loss 'lesa' needs a model with attentions: give another `loss.kind`")
    return lesa_loss(
        out,
        targets_BS,
        distribution=config.distribution,
        relevance=config.relevance,
        diversity=config.diversity,
        diversity_of=config.diversity_of,
    )._asdict()


def _semantic_diversity(config: LossConfig, out: Scores, vectors_SE: Tensor, targets_BS: Tensor) -> dict[str, Tensor]:
    if not isinstance(out, CodeScores):
        raise LesaError("the loss 'sdl' needs a model whose photos are points in word space: give another `loss.kind`")
    return {"total": sdl_loss(out, vectors_SE, targets_BS)}


def _of_scores(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Return a loss of the table from one that needs scores and targets only."""

    def terms(config: LossConfig, out: Scores, vectors_SE: Tensor, targets_BS: Tensor) -> dict[str, Tensor]:
        return {"total": loss(out.scores_BC, targets_BS)}

    return terms


LOSSES: dict[str, Loss] = {
    "lesa": _published,
    "contrastive": _of_scores(contrastive_loss),
    "logistic": _of_scores(logistic_loss),
    "ranking": _of_scores(ranking_loss),
    "ranknet": _of_scores(ranknet_loss),
    "sdl": _semantic_diversity,
    "warp": _of_scores(warp_loss),
}
"""The losses by the name in a recipe; a loss raises LesaError for a model whose output lacks what it needs."""
