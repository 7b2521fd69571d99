"""Metrics against scikit-learn, worked examples and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from lesa.evaluation.metrics import (
    COLUMNS,
    ROWS,
    average_precision,
    average_precision_C,
    break_ties,
    each_label,
    hits_at_k,
    precision_recall_f1,
    present_per_image,
    top_k,
)

TIED = st.integers(0, 4).map(float)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A small set of images: scores with many ties, targets with all three values."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 7)))
    return draw(arrays(np.float64, shape, elements=TIED)), draw(arrays(np.int8, shape, elements=st.integers(-1, 1)))


def f1_at_k(scores_NC: np.ndarray, targets_NC: np.ndarray, k: int) -> tuple[float, float, float]:
    """What the counts of all images make together."""
    hits, present = hits_at_k(scores_NC, targets_NC, k).sum(), present_per_image(targets_NC).sum()
    p, r, f1 = precision_recall_f1(hits, present, len(scores_NC), k)
    return float(p), float(r), float(f1)


def simple_f1(scores_NC: np.ndarray, targets_NC: np.ndarray, k: int) -> tuple[float, float, float]:
    """Count hits one image at a time; Python's sort keeps the order of equal columns."""
    hits = present = 0
    for scores_C, targets_C in zip(scores_NC.tolist(), targets_NC.tolist(), strict=True):
        best = sorted(range(len(scores_C)), key=lambda c: -scores_C[c])[:k]
        hits += sum(targets_C[c] == 1 for c in best)
        present += targets_C.count(1)
    p, r = hits / (len(scores_NC) * k), hits / present if present else 0.0
    return p, r, 2 * p * r / (p + r) if p + r else 0.0


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    present = np.array([True, False, True, False, True])
    assert average_precision(scores, present) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3, abs=1e-15)


@pytest.mark.parametrize("place", range(4))
def test_equal_scores_give_the_share_of_positives_whatever_the_file_order(place: int) -> None:
    assert average_precision(np.zeros(4), np.arange(4) == place) == 0.25


def test_a_label_without_positives_has_average_precision_0() -> None:
    assert average_precision(np.array([1.0, 2.0]), np.array([False, False])) == 0.0
    assert average_precision(np.array([]), np.array([], bool)) == 0.0


@given(scored())
def test_average_precision_is_scikit_learns_with_ties_and_unannotated_entries(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    scores_NC, targets_NC = case
    for masked in (True, False):
        ours_C = average_precision_C(each_label(scores_NC, targets_NC, masked))
        for c in range(scores_NC.shape[1]):
            used = (targets_NC[:, c] != 0) | (not masked)
            truth = targets_NC[used, c] > 0
            expected = average_precision_score(truth, scores_NC[used, c]) if truth.any() else 0.0
            assert ours_C[c] == pytest.approx(expected, abs=1e-12)


def test_average_precision_is_scikit_learns_on_a_large_tied_matrix() -> None:
    rng = np.random.default_rng(0)
    scores_NC = np.round(rng.normal(size=(3000, COLUMNS + 3)), 2).astype(np.float32)
    targets_NC = rng.choice([-1, 0, 1], p=[0.7, 0.2, 0.1], size=scores_NC.shape).astype(np.int8)
    expected_C = [
        average_precision_score(t[t != 0] > 0, s[t != 0]) for s, t in zip(scores_NC.T, targets_NC.T, strict=True)
    ]
    np.testing.assert_allclose(
        average_precision_C(each_label(scores_NC, targets_NC, True)), expected_C, rtol=0, atol=1e-12
    )
    expected = average_precision_score(targets_NC > 0, scores_NC, average="macro")
    assert average_precision_C(each_label(scores_NC, targets_NC, False)).mean() == pytest.approx(expected, abs=1e-12)


def test_precision_recall_and_f1_by_hand() -> None:
    scores_NC = np.array([[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0], [9.0, 1.0, 8.0, 2.0]])
    targets_NC = np.array([[1, -1, 1, -1], [-1, -1, -1, 1], [0, 1, 0, -1]])
    # The best two: columns 0 1 (one hit), 3 2 (one hit), 0 2 (not annotated: no hit); four labels are present.
    p, r, f1 = f1_at_k(scores_NC, targets_NC, 2)
    assert (p, r) == (2 / 6, 2 / 4)
    assert f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2), abs=1e-15)


@pytest.mark.parametrize(("place", "earlier", "later"), [(0, 1.0, 0.25), (3, 0.25, 1.0)])
def test_broken_ties_follow_the_file_order(place: int, earlier: float, later: float) -> None:
    present = np.arange(4) == place
    assert average_precision(break_ties(np.ones(4), "earlier"), present) == earlier
    assert average_precision(break_ties(np.ones(4), "later"), present) == later


@given(arrays(np.float64, st.integers(0, 12), elements=TIED), st.sampled_from(["earlier", "later"]))
def test_breaking_ties_keeps_the_order_of_different_scores(scores: np.ndarray, first: str) -> None:
    ranks = break_ties(scores, first)
    assert sorted(ranks.tolist()) == list(range(len(scores)))
    # Python's sort keeps the order of equal scores.
    places = list(range(len(scores))) if first == "earlier" else list(range(len(scores)))[::-1]
    best_first = sorted(places, key=lambda n: -scores[n])
    assert np.argsort(-ranks).tolist() == best_first


@given(scored(), st.data())
def test_precision_recall_and_f1_agree_with_counting_image_by_image(
    case: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, case[0].shape[1]))
    assert f1_at_k(*case, k) == pytest.approx(simple_f1(*case, k), abs=1e-15)


def test_precision_recall_and_f1_agree_over_several_blocks_of_rows() -> None:
    rng = np.random.default_rng(1)
    scores_NC = rng.integers(0, 5, size=(ROWS + 100, 9)).astype(np.float32)
    targets_NC = rng.integers(-1, 2, size=scores_NC.shape).astype(np.int8)
    assert f1_at_k(scores_NC, targets_NC, 3) == pytest.approx(simple_f1(scores_NC, targets_NC, 3))


def test_without_a_present_label_precision_recall_and_f1_are_0() -> None:
    assert f1_at_k(np.ones((2, 3)), -np.ones((2, 3)), 2) == (0.0, 0.0, 0.0)


def test_of_equal_scores_the_earlier_columns_are_taken() -> None:
    scores_NC = np.array([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert top_k(scores_NC, 2).tolist() == [[True, True, False, False], [True, True, False, False]]


@given(scored(), st.data())
def test_exactly_k_labels_are_taken(case: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, case[0].shape[1]))
    assert (top_k(case[0], k).sum(axis=1) == k).all()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_random_scores_in_single_and_double_precision_rank_alike(seed: int) -> None:
    scores_NC = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
    targets_NC = np.random.default_rng(seed + 1).integers(-1, 2, size=(40, 3))
    single = average_precision_C(each_label(scores_NC, targets_NC, True))
    double = average_precision_C(each_label(scores_NC.astype(np.float64), targets_NC, True))
    np.testing.assert_array_equal(single, double)
