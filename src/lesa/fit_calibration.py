"""Fitting a calibration on photos with known labels, and measuring its reliability on other photos."""

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
"""Least number of photos, of present labels and of absent labels."""
FOLDS = 5
"""Number of parts of the cross-validation."""
BINS = 15
"""Number of bins of the calibration error, of equal width, as in Guo et al. 2017."""
BEST = 5
"""The calibration error is also reported for this number of best labels per photo: most others are clearly absent."""
AT = 3
"""The K of the reported F1."""
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Precisions of the labels' own biases that are tried, besides no own biases."""
PRIOR = 0.1
"""Prior precision of slope, photo factor and seen bias, for scores of unit variance. It matters with little data."""
STEPS = 50
"""Greatest number of steps of Newton's method; it takes about eight."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Reliability:
    """How far probabilities are from the true labels; 0 is best."""

    ece: float
    """Expected calibration error over all pairs of photo and label."""
    ece_best: float
    """The same over the five most probable labels of each photo."""
    brier: float
    """Mean squared difference from 1 (present) or 0 (absent)."""
    log_loss: float
    """Mean negative log likelihood (natural logarithm)."""


@dataclass(frozen=True)
class Labelled:
    """Scores of photos with known labels."""

    names: tuple[str, ...]
    """The labels (C names)."""
    seen_C: Bools
    """Whether each label is seen: training photos had it."""
    scores_NC: Doubles
    """The bundle's scores, one row per photo."""
    offsets_N: Doubles
    """The photos' offsets."""
    targets_NC: NDArray[np.int8]
    """+1 present, -1 absent, 0 not known."""
    before_NC: Doubles
    """The log odds before this fit: from the bundle's own calibration, or the scores themselves if it has none."""
    calibrated: bool = False
    """Whether the bundle has a calibration already."""

    def photos(self, chosen_N: Bools) -> "Labelled":
        """Return the chosen photos only."""
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
    """Score photos with known labels; photos that cannot be read are left out.

    Args:
        tagger: a tagger of the bundle.
        photos: image files.
        targets_NC: +1 present, -1 absent, 0 not known.
        names: the labels (C names).
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
    canonical_names, offsets_N = tuple(map(tagger.canonical, names)), np.array(offsets)
    own = tagger.bundle.calibration
    biases_C = 0.0 if labels.biases_C is None else labels.biases_C
    before_NC = own.slope * scores_NC + own.photo_factor * offsets_N[:, None] + biases_C if own else scores_NC
    seen_C, targets_NC = np.array(labels.seen), targets_NC[rows]
    return Labelled(canonical_names, seen_C, scores_NC, offsets_N, targets_NC, before_NC, own is not None)


def fit_calibration(labelled: Labelled, strengths: Sequence[float] = STRENGTHS) -> Calibration:
    """Fit a calibration and measure its reliability on held-out photos.

    The reported metrics, the strength and the threshold come from 5-fold cross-validation over photos: each photo's
    probabilities come from a map that was fitted on the other folds. The returned map is fitted on all photos.

    Args:
        labelled: the scored photos.
        strengths: precisions to try for the labels' own biases. If empty, no own biases are fitted; this is right for a
            bundle that will tag photos of other collections.

    Raises:
        LesaError: there are too few photos or labels, or present labels score no higher than absent ones.
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
    """Return the expected calibration error: the mean over bins of |mean probability - share of present labels|.

    Each bin is weighted with its number of pairs. Guo et al. 2017, "On calibration of modern neural networks",
    equation 3, with 15 bins of equal width.

    Example:
        >>> calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, False, False, False]))
        0.25
    """
    bins_P = np.minimum((probabilities_P * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins_P, weights=probabilities_P - present_P, minlength=BINS)
    return float(np.abs(gaps).sum() / len(present_P))


def best_threshold(probabilities_P: NDArray[Any], present_P: Bools) -> float:
    """Return the threshold with the greatest F1 over all pairs of photo and label."""
    order_P = np.argsort(-probabilities_P, kind="stable")
    sorted_P = probabilities_P[order_P]
    hits_P = np.cumsum(present_P[order_P])
    f1_P = 2 * hits_P / (np.arange(1, len(hits_P) + 1) + hits_P[-1])
    # Pairs of equal probability become tags together or not at all.
    last_P = np.append(sorted_P[1:] < sorted_P[:-1], True)
    return float(sorted_P[np.argmax(np.where(last_P, f1_P, -1.0))])


def fit_logistic(columns_KP: Doubles, present_P: Bools, prior_K: Doubles) -> Doubles:
    """Return the K weights of the most probable logistic model, by Newton's method with halved steps.

    Args:
        columns_KP: K features of P pairs of photo and label.
        present_P: whether the label is present.
        prior_K: precision of the normal prior of each weight, with mean zero.
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
    """The part of the map that is the same for all labels."""

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
    # With equal scores the fitted slope is 0, which is refused after the fit.
    spread = spread or 1.0
    features = labelled.scores_NC, labelled.offsets_N[:, None], np.ones(1), labelled.seen_C.astype(np.float64)
    columns_KP = np.stack([np.broadcast_to(each, known_NC.shape)[known_NC] for each in features])
    columns_KP[:2] = (columns_KP[:2] - mean) / spread
    # The bias has no prior. If no label is unseen (or none is seen), the prior makes the seen bias 0.
    prior_K = np.array([PRIOR, PRIOR, 0.0, PRIOR])
    slope, photo_factor, bias, seen_bias = fit_logistic(columns_KP, labelled.targets_NC[known_NC] > 0, prior_K).tolist()
    return _Shared(slope / spread, photo_factor / spread, bias - (slope + photo_factor) * mean / spread, seen_bias)


def _fit_biases(logits_NC: Doubles, targets_NC: NDArray[Any], strength: float) -> Doubles:
    """Return each label's most probable own bias, `C`, under a normal prior with mean zero and this precision."""
    biases_C = np.zeros(logits_NC.shape[1])
    if math.isinf(strength):
        return biases_C
    known_NC, present_NC = targets_NC != 0, targets_NC > 0
    for _ in range(STEPS):
        p_NC = sigmoid(logits_NC + biases_C) * known_NC
        gradient_C = (present_NC - p_NC).sum(axis=0) - strength * biases_C
        # Far from the optimum a step of Newton's method may be too long.
        step_C = np.clip(gradient_C / ((p_NC * (1 - p_NC)).sum(axis=0) + strength), -1, 1)
        biases_C += step_C
        if np.abs(step_C).max() < 1e-8:
            break
    return biases_C


def _held_out(labelled: Labelled, strengths: Sequence[float]) -> dict[float, Doubles]:
    """Return for each strength the logits of all photos; each photo's map was fitted without the photo's fold."""
    # In random order, because photos that follow each other in a collection are alike.
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
    """Return the report of the fit, which is stored in the calibration."""
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
    """Return the reliability of `sigmoid(logits_NC)` over the pairs with a known target, `N, C`."""
    known_NC = targets_NC != 0
    # Only known labels are used, so a photo with fewer than five known labels has fewer than five best ones.
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
    """Return the reliability over all, seen and unseen labels; a kind without a known target is left out."""
    kinds = {"all": np.ones_like(labelled.seen_C), "seen": labelled.seen_C, "unseen": ~labelled.seen_C}
    parts = {kind: (logits_NC[:, of_C], labelled.targets_NC[:, of_C]) for kind, of_C in kinds.items()}
    measured = {kind: reliability(*part) for kind, part in parts.items() if part[1].any()}
    return {kind: {name: round(value, 6) for name, value in asdict(each).items()} for kind, each in measured.items()}


def f1_at(order_NC: Doubles, targets_NC: NDArray[Any]) -> float:
    """Return F1 at 3 over all labels together, in percent, by the rules `lesa` (see `lesa.evaluation.rules`).

    A label with an unknown target counts as wrong there. So with partly known labels only compare this metric between
    orders of the same photos.
    """
    k = min(AT, order_NC.shape[1])
    hits, present = hits_at_k(order_NC, targets_NC, k).sum(), (targets_NC > 0).sum()
    return round(100 * float(precision_recall_f1(hits, present, len(order_NC), k)[2]), 3)
