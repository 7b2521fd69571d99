"""Fitting a calibration on photos whose labels are known, and how reliable it is on others."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lesa.calibration import Calibration, Doubles, sigmoid
from lesa.errors import LesaError
from lesa.evaluation.metrics import hits_at_k, precision_recall_f1, top_k

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lesa.tagger import Tagger


LEAST = 10
"""Photos, and present labels, without which nothing is fitted."""
FOLDS = 5
BINS = 15
"""Of the calibration error: equal widths, as Guo et al. 2017 take them."""
BEST = 5
"""Tags a photo whose calibration error is reported on its own: most pairs of photo and label are plainly absent."""
AT = 3
"""The K of the reported F1."""
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Precisions of the labels' own biases that are tried, beside none of them."""
PRIOR = 0.1
"""Precision of slope, photo factor and seen bias, for scores of unit variance: it decides where there is no data."""
STEPS = 50
"""Of Newton's method; it takes about eight."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Reliability:
    """How far probabilities are from what is present; 0 is best."""

    ece: float
    """Expected calibration error over all pairs of photo and label."""
    ece_best: float
    """The same over each photo's five most probable labels."""
    brier: float
    """Mean squared difference from 1 (present) or 0 (absent)."""
    log_loss: float
    """Mean negative log likelihood, natural."""


@dataclass(frozen=True)
class Labelled:
    """Scores of photos whose labels are known."""

    names: tuple[str, ...]
    """The labels (C names)."""
    seen_C: Bools
    """Whether training photos carried them."""
    scores_NC: Doubles
    """The bundle's scores, photos x labels."""
    offsets_N: Doubles
    """The photos' offsets."""
    targets_NC: NDArray[np.int8]
    """+1 present, -1 absent, 0 not known."""
    before_NC: Doubles
    """The log odds that the bundle gives already: by its own calibration, or the scores themselves if it has none."""
    calibrated: bool = False
    """Whether the bundle has a calibration already."""

    def photos(self, chosen_N: Bools) -> "Labelled":
        """Return some of the photos."""
        return replace(
            self,
            scores_NC=self.scores_NC[chosen_N],
            offsets_N=self.offsets_N[chosen_N],
            targets_NC=self.targets_NC[chosen_N],
            before_NC=self.before_NC[chosen_N],
        )


def score_photos(
    tagger: "Tagger",
    photos: Sequence["Path | str"],
    targets_NC: NDArray[np.int8],
    names: Sequence[str],
    failed: "Callable[[LesaError], None]",
    progress: "Callable[[int], None]" = lambda done: None,
) -> Labelled:
    """Score photos whose labels are known; photos that cannot be read are left out.

    Args:
        tagger: of the bundle.
        photos: image files.
        targets_NC: +1 present, -1 absent, 0 not known.
        names: the labels.
        failed: called with the reason for each photo that cannot be read.
        progress: called with the number of photos done.
    """
    labels = tagger.labels(names)
    rows, scores, offsets = [], [], []
    for row, (_, codes) in enumerate(tagger.stream(photos)):
        if isinstance(codes, LesaError):
            failed(codes)
        else:
            rows.append(row)
            scores.append(tagger.score(codes, labels).scores_C)
            offsets.append(tagger.photo_offset(codes))
        progress(row + 1)
    scores_NC = np.array(scores, np.float64).reshape(len(rows), len(names))
    carried, offsets_N, own = tuple(map(tagger.canonical, names)), np.array(offsets), tagger.bundle.calibration
    biases_C = 0.0 if labels.biases_C is None else labels.biases_C
    before_NC = own.slope * scores_NC + own.photo_factor * offsets_N[:, None] + biases_C if own else scores_NC
    return Labelled(carried, np.array(labels.seen), scores_NC, offsets_N, targets_NC[rows], before_NC, own is not None)


def fit_calibration(labelled: Labelled, strengths: Sequence[float] = STRENGTHS) -> Calibration:
    """Fit a calibration, with its reliability on photos that were held out.

    The reported metrics, the strength and the threshold come from 5-fold cross-validation over photos: each photo's
    probabilities are those of a map fitted on the other folds. The map that is returned is fitted on all photos.

    Args:
        labelled: the scored photos.
        strengths: precisions that are tried for the labels' own biases; empty for none, as for a bundle whose photos
            will show other things than these.

    Raises:
        LesaError: too few photos or present labels, or scores that do not tell present from absent.
    """
    _check(labelled)
    shared = _fit_shared(labelled)
    if not shared.slope > 0:
        raise LesaError("present labels score no higher than absent ones: check that the labels belong to these photos")
    held_out = _held_out(labelled, (math.inf, *strengths))
    strength = min(held_out, key=lambda each: reliability(held_out[each], labelled.targets_NC).log_loss)
    own_C = _fit_biases(shared.logits(labelled), labelled.targets_NC, strength)
    known_NC = labelled.targets_NC != 0
    probabilities_P = sigmoid(held_out[strength][known_NC])
    return Calibration(
        *shared,
        labels={} if math.isinf(strength) else dict(zip(labelled.names, own_C.tolist(), strict=True)),
        threshold=round(best_threshold(probabilities_P, labelled.targets_NC[known_NC] > 0), 3),
        report=_report(labelled, held_out, strength),
    )


def calibration_error(probabilities_P: NDArray[Any], present_P: Bools) -> float:
    """Return the expected calibration error: the mean over bins, by their number, of |probability - share present|.

    Guo et al. 2017, "On calibration of modern neural networks", equation 3, with 15 bins of equal width.

    Example:
        >>> calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, False, False, False]))
        0.25
    """
    bins_P = np.minimum((probabilities_P * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins_P, weights=probabilities_P - present_P, minlength=BINS)
    return float(np.abs(gaps).sum() / len(present_P))


def best_threshold(probabilities_P: NDArray[Any], present_P: Bools) -> float:
    """Return the least probability of a tag at which precision and recall over all pairs have the greatest F1."""
    order_P = np.argsort(-probabilities_P, kind="stable")
    sorted_P = probabilities_P[order_P]
    hits_P = np.cumsum(present_P[order_P])
    f1_P = 2 * hits_P / (np.arange(1, len(hits_P) + 1) + hits_P[-1])
    # Pairs of one probability are tags together or not at all.
    last_P = np.append(sorted_P[1:] < sorted_P[:-1], True)
    return float(sorted_P[np.argmax(np.where(last_P, f1_P, -1.0))])


def fit_logistic(columns_KP: Doubles, present_P: Bools, prior_K: Doubles) -> Doubles:
    """Return the K weights of the most probable logistic model, by Newton's method with halved steps.

    Args:
        columns_KP: the features of P pairs.
        present_P: whether the label is present.
        prior_K: precision of each weight around zero.
    """

    def objective(weights_K: Doubles) -> float:
        logits_P = weights_K @ columns_KP
        likelihood = (logits_P[present_P]).sum() - np.logaddexp(0.0, logits_P).sum()
        return float(likelihood - (prior_K * weights_K**2).sum() / 2)

    weights_K = np.zeros(len(columns_KP))
    value = objective(weights_K)
    for _ in range(STEPS):
        p_P = sigmoid(weights_K @ columns_KP)
        gradient_K = columns_KP @ (present_P - p_P) - prior_K * weights_K
        hessian_KK = (columns_KP * (p_P * (1 - p_P))) @ columns_KP.T + np.diag(prior_K)
        step_K = np.linalg.solve(hessian_KK, gradient_K)
        while (better := objective(weights_K + step_K)) < value and np.abs(step_K).max() > 1e-12:
            step_K /= 2
        weights_K, value = weights_K + step_K, better
        if np.abs(step_K).max() < 1e-10:
            break
    return weights_K


class _Shared(NamedTuple):
    """The part of the map that all labels share."""

    slope: float
    photo_factor: float
    bias: float
    seen_bias: float

    def logits(self, labelled: Labelled) -> Doubles:
        by_photo_N1 = self.photo_factor * labelled.offsets_N[:, None] + self.bias
        return self.slope * labelled.scores_NC + by_photo_N1 + self.seen_bias * labelled.seen_C


def _fit_shared(labelled: Labelled) -> _Shared:
    known_NC = labelled.targets_NC != 0
    mean, spread = float(labelled.scores_NC.mean()), float(labelled.scores_NC.std())
    # Equal scores are refused after the fit, whose slope is then 0.
    spread = spread or 1.0
    features = labelled.scores_NC, labelled.offsets_N[:, None], np.ones(1), labelled.seen_C.astype(np.float64)
    columns_KP = np.stack([np.broadcast_to(each, known_NC.shape)[known_NC] for each in features])
    columns_KP[:2] = (columns_KP[:2] - mean) / spread
    # The bias is free; where no label is unseen (or seen), the offset's prior makes it 0.
    prior_K = np.array([PRIOR, PRIOR, 0.0, PRIOR])
    slope, photo_factor, bias, seen_bias = fit_logistic(columns_KP, labelled.targets_NC[known_NC] > 0, prior_K).tolist()
    return _Shared(slope / spread, photo_factor / spread, bias - (slope + photo_factor) * mean / spread, seen_bias)


def _fit_biases(logits_NC: Doubles, targets_NC: NDArray[Any], strength: float) -> Doubles:
    """Return each label's own bias, `C`: the most probable one under a normal prior around zero of that precision."""
    biases_C = np.zeros(logits_NC.shape[1])
    if math.isinf(strength):
        return biases_C
    known_NC, present_NC = targets_NC != 0, targets_NC > 0
    for _ in range(STEPS):
        p_NC = sigmoid(logits_NC + biases_C) * known_NC
        gradient_C = (present_NC - p_NC).sum(axis=0) - strength * biases_C
        # Far from the optimum a step of Newton's method may go past it.
        step_C = np.clip(gradient_C / ((p_NC * (1 - p_NC)).sum(axis=0) + strength), -1, 1)
        biases_C += step_C
        if np.abs(step_C).max() < 1e-8:
            break
    return biases_C


def _held_out(labelled: Labelled, strengths: Sequence[float]) -> dict[float, Doubles]:
    """Return, by strength, the logits of each photo under the map that was fitted without the photo's fold."""
    # Collections are sorted: neighbours show the same things.
    fold_N = np.random.default_rng(0).permutation(len(labelled.scores_NC)) % FOLDS
    logits = {strength: np.empty_like(labelled.scores_NC) for strength in strengths}
    for fold in range(FOLDS):
        others, held_out = labelled.photos(fold_N != fold), labelled.photos(fold_N == fold)
        shared = _fit_shared(others)
        for strength, logits_NC in logits.items():
            own_C = _fit_biases(shared.logits(others), others.targets_NC, strength)
            logits_NC[fold_N == fold] = shared.logits(held_out) + own_C
    return logits


def _check(labelled: Labelled) -> None:
    if not np.isfinite(labelled.scores_NC).all():
        raise LesaError("a score is not finite: the bundle or a photo is damaged")
    photos = len(labelled.scores_NC)
    present, absent = int((labelled.targets_NC > 0).sum()), int((labelled.targets_NC < 0).sum())
    if min(photos, present, absent) < LEAST:
        raise LesaError(
            f"{photos} photos with {present} present and {absent} absent labels are too few to calibrate: give at "
            f"least {LEAST} of each; a few dozen photos are better"
        )


def _report(labelled: Labelled, held_out: dict[float, Doubles], strength: float) -> dict[str, Any]:
    """Return what the calibration says about how it was found."""
    own = "" if math.isinf(strength) else f" + the label's own bias (normal prior, precision {strength:g})"
    before = "the bundle's own calibration" if labelled.calibrated else "sigmoid of the score"
    orders = {"scores": labelled.scores_NC, "seen bias": held_out[math.inf], "calibrated": held_out[strength]}
    return {
        "method": f"logistic: score, photo's offset, bias of seen labels{own}",
        "photos": len(labelled.scores_NC),
        "seen_labels": int(labelled.seen_C.sum()),
        "unseen_labels": int((~labelled.seen_C).sum()),
        "present_labels_per_photo": round(float((labelled.targets_NC > 0).sum(axis=1).mean()), 3),
        "measured": f"before: {before}; after: held-out photos of {FOLDS}-fold cross-validation",
        "before": _by_kind(labelled, labelled.before_NC),
        "after": _by_kind(labelled, held_out[strength]),
        f"f1_at_{AT}": {name: f1_at(order_NC, labelled.targets_NC) for name, order_NC in orders.items()},
        "threshold": "greatest F1 over all pairs of held-out photo and label",
    }


def reliability(logits_NC: NDArray[Any], targets_NC: NDArray[Any]) -> Reliability:
    """Return how reliable `sigmoid(logits)` is, over the pairs whose target is known."""
    known_NC = targets_NC != 0
    # Of the known labels: a photo with fewer than five of them has less than five best.
    best_NC = top_k(np.where(known_NC, logits_NC, -np.inf), min(BEST, logits_NC.shape[1])) & known_NC
    probabilities_NC, present_NC = sigmoid(logits_NC), targets_NC > 0
    logits_P, present_P, probabilities_P = logits_NC[known_NC], present_NC[known_NC], probabilities_NC[known_NC]
    return Reliability(
        ece=calibration_error(probabilities_P, present_P),
        ece_best=calibration_error(probabilities_NC[best_NC], present_NC[best_NC]),
        brier=float(np.mean((probabilities_P - present_P) ** 2)),
        log_loss=float(np.mean(np.logaddexp(0.0, logits_P) - logits_P * present_P)),
    )


def _by_kind(labelled: Labelled, logits_NC: Doubles) -> dict[str, dict[str, float]]:
    """Return the reliability over all labels, the seen and the unseen ones, where a target is known."""
    kinds = {"all": np.ones_like(labelled.seen_C), "seen": labelled.seen_C, "unseen": ~labelled.seen_C}
    parts = {kind: (logits_NC[:, of_C], labelled.targets_NC[:, of_C]) for kind, of_C in kinds.items()}
    found = {kind: reliability(*part) for kind, part in parts.items() if part[1].any()}
    return {kind: {name: round(value, 6) for name, value in asdict(each).items()} for kind, each in found.items()}


def f1_at(order_NC: Doubles, targets_NC: NDArray[Any]) -> float:
    """Return F1 at 3 over the labels together, in percent, by the rules `lesa` (see `lesa.evaluation.rules`).

    A label that nobody looked for counts as wrong there: with partly known labels the metric compares orders only.
    """
    k = min(AT, order_NC.shape[1])
    hits, present = hits_at_k(order_NC, targets_NC, k).sum(), (targets_NC > 0).sum()
    return round(100 * float(precision_recall_f1(hits, present, len(order_NC), k)[2]), 3)
