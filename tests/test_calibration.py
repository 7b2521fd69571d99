"""Probabilities from scores: the fit against scikit-learn, the metrics against values by hand, unusual data."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, f1_score, log_loss

from lesa.calibration import Calibration, photo_offset, sigmoid
from lesa.errors import LesaError
from lesa.evaluation.report import evaluate
from lesa.fit_calibration import (
    Labelled,
    best_threshold,
    calibration_error,
    f1_at,
    fit_calibration,
    fit_logistic,
    reliability,
)

SLOPE, LEVEL, BIAS, SEEN = 1.3, -0.6, -2.0, -0.8


def made_up(photos: int = 200, labels: int = 40, own: float = 0.0, seed: int = 0) -> Labelled:
    """Scored photos whose labels are present with exactly the probabilities of a map; a third is unseen."""
    random = np.random.default_rng(seed)
    seen_C = np.arange(labels) >= labels // 3
    offsets_N = random.normal(0.5, 0.7, photos)
    scores_NC = random.normal(0.4 * seen_C, 1.4, (photos, labels)) + offsets_N[:, None]
    own_C = random.normal(0, own, labels) if own else np.zeros(labels)
    p_NC = expit(SLOPE * scores_NC + LEVEL * offsets_N[:, None] + BIAS + SEEN * seen_C + own_C)
    targets_NC = np.where(random.random(p_NC.shape) < p_NC, 1, -1).astype(np.int8)
    return Labelled(tuple(f"label {c}" for c in range(labels)), seen_C, scores_NC, offsets_N, targets_NC, scores_NC)


def calibration(**changes: object) -> Calibration:
    fields = {
        "slope": 1.0,
        "photo_factor": -0.5,
        "bias": -1.0,
        "seen_bias": -0.3,
        "labels": {"cat": 0.7},
        "threshold": 0.2,
    }
    return Calibration(**{**fields, "report": {}, **changes})  # type: ignore[arg-type]


# The fit


# scikit-learn's calls take most of the time.
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), features=st.integers(1, 4), far=st.floats(0.1, 5), prior=st.floats(1e-3, 10))
def test_newtons_fit_is_scikit_learns(seed: int, features: int, far: float, prior: float) -> None:
    random = np.random.default_rng(seed)
    columns_KP = random.normal(0, far, (features, 80))
    present_P = random.random(80) < expit(random.normal(0, 1, features) @ columns_KP)
    present_P[:2] = True, False
    found_K = fit_logistic(columns_KP, present_P, np.full(features, prior))
    oracle = LogisticRegression(C=1 / prior, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    np.testing.assert_allclose(found_K, oracle.fit(columns_KP.T, present_P).coef_[0], rtol=1e-6, atol=1e-8)


def test_labels_that_a_feature_separates_have_a_finite_map() -> None:
    columns_KP = np.stack([np.concatenate([np.full(50, -9.0), np.full(50, 9.0)]), np.ones(100)])
    found_K = fit_logistic(columns_KP, columns_KP[0] > 0, np.array([0.1, 0.0]))
    assert np.isfinite(found_K).all()
    assert found_K[0] > 0.1


def test_the_shared_map_and_the_labels_biases_are_found_again() -> None:
    shared = fit_calibration(made_up(2000), strengths=())
    assert (shared.slope, shared.photo_factor) == pytest.approx((SLOPE, LEVEL), abs=0.08)
    assert (shared.bias, shared.seen_bias) == pytest.approx((BIAS, SEEN), abs=0.08)
    assert shared.labels == {}
    assert shared.report["after"]["all"]["ece"] < 0.01

    labelled = made_up(2000, own=1.0)
    with_own = fit_calibration(labelled)
    assert (
        with_own.report["after"]["all"]["log_loss"] < fit_calibration(labelled, ()).report["after"]["all"]["log_loss"]
    )
    # Each label is present as often as its mean probability.
    biases_C = with_own.biases(labelled.names, labelled.seen_C.tolist())
    p_NC = expit(with_own.slope * labelled.scores_NC + with_own.photo_factor * labelled.offsets_N[:, None] + biases_C)
    np.testing.assert_allclose(p_NC.mean(axis=0), (labelled.targets_NC > 0).mean(axis=0), atol=0.005)


def test_own_biases_are_the_most_probable_under_their_prior() -> None:
    labelled, strength = made_up(60, own=1.0), 2.0
    labelled.targets_NC[::7, ::3] = 0
    made = fit_calibration(labelled, (strength,))
    fixed_NC = made.slope * labelled.scores_NC + made.photo_factor * labelled.offsets_N[:, None] + made.bias
    for c, name in enumerate(labelled.names):
        logits_N, targets_N = fixed_NC[:, c] + made.seen_bias * labelled.seen_C[c], labelled.targets_NC[:, c]
        known_N = targets_N != 0

        def loss(own: float, z_P: np.ndarray = logits_N[known_N], signs_P: np.ndarray = targets_N[known_N]) -> float:
            return float(np.logaddexp(0, -signs_P * (z_P + own)).sum() + strength * own**2 / 2)

        oracle = minimize(lambda own, loss=loss: loss(own[0]), [0.0], tol=1e-12)
        assert made.labels[name] == pytest.approx(oracle.x[0], abs=1e-5)


def test_labels_that_are_all_alike_but_for_chance_get_no_bias_of_their_own() -> None:
    assert fit_calibration(made_up(60, labels=20, seed=3)).labels == {}


def test_labels_that_are_not_known_do_not_count() -> None:
    labelled = made_up(60)
    doubled = replace(
        labelled,
        names=labelled.names + tuple(f"other {name}" for name in labelled.names),
        seen_C=np.tile(labelled.seen_C, 2),
        scores_NC=np.hstack([labelled.scores_NC, labelled.scores_NC]),
        before_NC=np.hstack([labelled.before_NC, labelled.before_NC]),
        targets_NC=np.hstack([labelled.targets_NC, np.zeros_like(labelled.targets_NC)]),
    )
    one, other = fit_calibration(labelled, ()), fit_calibration(doubled, ())
    assert (one.slope, one.photo_factor, one.bias, one.seen_bias) == pytest.approx(
        (other.slope, other.photo_factor, other.bias, other.seen_bias), rel=1e-9
    )
    assert one.threshold == other.threshold
    assert one.report["after"]["all"]["log_loss"] == other.report["after"]["all"]["log_loss"]


@pytest.mark.parametrize("seen", [True, False])
def test_without_a_second_kind_of_labels_there_is_no_offset(seen: bool) -> None:
    labelled = made_up(40)
    made = fit_calibration(replace(labelled, seen_C=np.full(len(labelled.names), seen)))
    assert made.seen_bias == pytest.approx(0, abs=0.1)
    assert set(made.report["after"]) == {"all", "seen" if seen else "unseen"}


def test_data_that_say_nothing_are_refused() -> None:
    labelled = made_up(40)
    with pytest.raises(LesaError, match=r"9 photos with \d+ present and \d+ absent labels are too few"):
        fit_calibration(labelled.photos(np.arange(40) < 9))
    with pytest.raises(LesaError, match="with 0 present"):
        fit_calibration(replace(labelled, targets_NC=-np.abs(labelled.targets_NC)))
    with pytest.raises(LesaError, match="score no higher"):
        fit_calibration(replace(labelled, targets_NC=-labelled.targets_NC))
    with pytest.raises(LesaError, match="score no higher"):
        fit_calibration(replace(labelled, scores_NC=np.full_like(labelled.scores_NC, 2.0)))
    with pytest.raises(LesaError, match="not finite"):
        fit_calibration(replace(labelled, scores_NC=np.full_like(labelled.scores_NC, np.nan)))


def test_what_is_reported_and_chosen_is_of_photos_that_were_held_out() -> None:
    # With twelve photos a free bias for each label fits these photos better, and other photos worse.
    labelled = made_up(12)
    made = fit_calibration(labelled, (0.01,))
    assert made.labels == {}
    shared_NC = made.slope * labelled.scores_NC + made.photo_factor * labelled.offsets_N[:, None]
    fitted = reliability(shared_NC + made.biases(labelled.names, labelled.seen_C.tolist()), labelled.targets_NC)
    assert made.report["after"]["all"]["log_loss"] > fitted.log_loss


# The metrics


@given(
    probabilities=st.lists(st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.9, 1.0]), min_size=1, max_size=40), data=st.data()
)
def test_the_calibration_error_is_the_textbooks(probabilities: list[float], data: st.DataObject) -> None:
    present = data.draw(st.lists(st.booleans(), min_size=len(probabilities), max_size=len(probabilities)))
    # Each of these probabilities is alone in its bin.
    expected = 0.0
    for value in set(probabilities):
        those = [each for p, each in zip(probabilities, present, strict=True) if p == value]
        expected += len(those) / len(present) * abs(value - sum(those) / len(those))
    assert calibration_error(np.array(probabilities), np.array(present)) == pytest.approx(expected)


def test_the_calibration_error_of_hand_worked_bins() -> None:
    # Two bins: (0.61 + 0.63) / 2 and 1 of 2 present, twice; 0.05 and 0 of 1 present.
    p_P = np.array([0.61, 0.63, 0.05])
    assert calibration_error(p_P, np.array([True, False, False])) == pytest.approx((2 * 0.12 + 0.05) / 3)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


@given(seed=st.integers(0, 200))
def test_the_calibration_error_of_true_probabilities_is_near_zero(seed: int) -> None:
    random = np.random.default_rng(seed)
    p_P = random.random(20_000)
    assert calibration_error(p_P, random.random(20_000) < p_P) < 0.02
    assert calibration_error(p_P, random.random(20_000) < p_P**3) > 0.1


def test_the_other_figures_are_scikit_learns_and_the_protocols() -> None:
    labelled = made_up(50)
    labelled.targets_NC[::5, ::2] = 0
    known_NC = labelled.targets_NC != 0
    p_P, present_P = expit(labelled.scores_NC[known_NC]), labelled.targets_NC[known_NC] > 0
    measured = reliability(labelled.scores_NC, labelled.targets_NC)
    assert measured.brier == pytest.approx(brier_score_loss(present_P, p_P))
    assert measured.log_loss == pytest.approx(log_loss(present_P, p_P))
    report = evaluate(labelled.scores_NC, labelled.targets_NC, "lesa", k=(3,))
    assert f1_at(labelled.scores_NC, labelled.targets_NC) == pytest.approx(report.f1[3], abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.4, 0.8]), st.booleans()), min_size=1).filter(
        lambda pairs: any(present for _, present in pairs)
    )
)
def test_no_threshold_has_a_greater_f1(pairs: list[tuple[float, bool]]) -> None:
    p_P, present_P = np.array([p for p, _ in pairs]), np.array([present for _, present in pairs])
    best = max(f1_score(present_P, p_P >= limit) for limit in set(p_P.tolist()))
    assert f1_score(present_P, p_P >= best_threshold(p_P, present_P)) == pytest.approx(best)


@given(scores=arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(-900, 900)))
def test_a_level_is_scipys_log_mean_exp_of_any_scores(scores: np.ndarray) -> None:
    assert photo_offset(scores) == pytest.approx(logsumexp(scores) - np.log(len(scores)))
    np.testing.assert_allclose(sigmoid(scores), expit(scores), rtol=1e-12, atol=1e-300)


# The map


@given(
    scores=arrays.arrays(np.float32, 5, elements=st.floats(-20, 20, width=32)),
    level=st.floats(-9, 9),
    slope=st.floats(0.01, 5),
)
def test_a_higher_score_is_a_higher_probability(scores: np.ndarray, level: float, slope: float) -> None:
    made = calibration(slope=slope)
    p_C = made.probabilities(np.sort(scores), level, made.biases(["moon"] * 5, [True] * 5))
    assert (np.diff(p_C) >= 0).all()
    assert ((p_C >= 0) & (p_C <= 1)).all()


def test_a_word_that_was_not_calibrated_has_the_unseen_map() -> None:
    made = calibration()
    biases = made.biases(["cat", "cup", "moon"], [True, True, False]).tolist()
    assert biases == pytest.approx([-1 - 0.3 + 0.7, -1 - 0.3, -1])
    expected = expit([2.0 - 0.5 * 4.0 - 0.6, 1.0 - 0.5 * 4.0 - 1.3, 0.0 - 0.5 * 4.0 - 1.0])
    np.testing.assert_allclose(made.probabilities(np.array([2.0, 1.0, 0.0]), 4.0, np.array(biases)), expected)


def test_what_json_holds_is_the_calibration_again() -> None:
    made = fit_calibration(made_up(50, own=1.0))
    assert Calibration.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    "change",
    [{"slope": 0.0}, {"slope": float("nan")}, {"threshold": 1.5}, {"labels": {"cat": float("inf")}}],
    ids=str,
)
def test_numbers_that_give_no_probabilities_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(LesaError, match="finite numbers, a slope above 0"):
        calibration(**change)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {"format": "lesa-calibration-2"},
        {"format": "lesa-calibration-1", "slope": 1},
        {**calibration().to_dict(), "labels": ["cat"]},
        {**calibration().to_dict(), "slope": "steep"},
        {**calibration().to_dict(), "report": 1},
    ],
    ids=str,
)
def test_what_is_no_calibration_is_refused(fields: object) -> None:
    with pytest.raises(LesaError, match="calibrate again"):
        Calibration.from_dict(fields)


def test_labels_that_nobody_looked_for_take_no_place_among_the_best() -> None:
    random = np.random.default_rng(0)
    logits_NC = random.normal(size=(4, 20))
    targets_NC = np.zeros((4, 20), np.int8)
    worst = logits_NC.argmin(axis=1)
    targets_NC[np.arange(4), worst] = 1
    expected = np.mean(1 - expit(logits_NC.min(axis=1)))
    assert reliability(logits_NC, targets_NC).ece_best == pytest.approx(expected, rel=0.2)
