"""Bootstrap intervals: what a draw is, what an interval holds, how often it holds the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesa.errors import LesaError
from lesa.evaluation.bootstrap import draw_average_precision, draw_metrics, draw_weights, intervals, paired_differences
from lesa.evaluation.metrics import average_precision
from lesa.evaluation.report import evaluate
from lesa.evaluation.rules import RULES


def made_up(images: int, seed: int, labels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores that know something of targets with all three values."""
    rng = np.random.default_rng(seed)
    targets_NC = rng.choice([-1, 0, 1], p=[0.6, 0.1, 0.3], size=(images, labels)).astype(np.int8)
    return np.round(targets_NC + rng.normal(scale=2, size=targets_NC.shape), 1), targets_NC


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            arrays(np.float64, n, elements=st.integers(0, 4).map(float)),
            arrays(bool, n),
            arrays(np.float64, (3, n), elements=st.integers(0, 3).map(float)),
        )
    )
)
def test_a_weight_is_so_many_copies_of_an_image(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores_N, present_N, weights_DN = case
    precision_D, count_D = draw_average_precision(scores_N, present_N, weights_DN)
    for precision, count, weights_N in zip(precision_D, count_D, weights_DN.astype(int), strict=True):
        copies = np.repeat(scores_N, weights_N), np.repeat(present_N, weights_N)
        assert precision == pytest.approx(average_precision(*copies), abs=1e-12)
        assert count == copies[1].sum()


@pytest.mark.parametrize("rules", [name for name, rule in RULES.items() if rule.ties == "grouped"])
def test_a_draw_is_the_report_of_the_drawn_images(rules: str) -> None:
    scores_NC, targets_NC = made_up(80, seed=1)
    drawn = draw_metrics(scores_NC, targets_NC, rules, k=(1, 2), draws=4, seed=3)
    weights_DN = draw_weights(np.ones(80, dtype=bool), 4, seed=3).astype(int)
    for d, weights_N in enumerate(weights_DN):
        expected = evaluate(np.repeat(scores_NC, weights_N, 0), np.repeat(targets_NC, weights_N, 0), rules, k=(1, 2))
        assert {name: values[d] for name, values in drawn.items()} == pytest.approx(expected.metrics())


def test_images_that_the_rules_drop_are_never_drawn() -> None:
    weights_DN = draw_weights(np.array([True, False, True, True]), 20, seed=0)
    assert (weights_DN[:, 1] == 0).all()
    assert (weights_DN.sum(axis=1) == 3).all()
    assert len(np.unique(weights_DN, axis=0)) > 1


@pytest.mark.parametrize("rules", sorted(RULES))
def test_an_interval_surrounds_the_report_and_shrinks_with_more_images(rules: str) -> None:
    widths = []
    for images in (200, 3200):
        scores_NC, targets_NC = made_up(images, seed=2)
        report = evaluate(scores_NC, targets_NC, rules, k=(1,))
        found = intervals(report, draw_metrics(scores_NC, targets_NC, rules, k=(1,)))
        assert {name: each.value for name, each in found.items()} == report.metrics()
        assert all(each.low < each.value < each.high for each in found.values())
        widths.append(found["mAP"].high - found["mAP"].low)
    # Sixteen times the images: a quarter of the width.
    assert 3 < widths[0] / widths[1] < 5


def test_intervals_hold_the_truth_about_95_times_of_100() -> None:
    truth = evaluate(*made_up(100_000, seed=99, labels=3), k=(1,)).metrics()
    held = dict.fromkeys(truth, 0)
    for seed in range(200):
        scores_NC, targets_NC = made_up(250, seed, labels=3)
        drawn = draw_metrics(scores_NC, targets_NC, k=(1,), draws=80, seed=seed)
        found = intervals(evaluate(scores_NC, targets_NC, k=(1,)), drawn)
        for name, each in found.items():
            held[name] += each.low <= truth[name] <= each.high
    assert all(180 <= times <= 199 for times in held.values()), held


def test_scores_do_not_differ_from_themselves() -> None:
    scores_NC, targets_NC = made_up(100, seed=3)
    report, drawn = evaluate(scores_NC, targets_NC, k=(1,)), draw_metrics(scores_NC, targets_NC, k=(1,))
    for each in paired_differences(report, drawn, report, drawn).values():
        assert (each.low, each.value, each.high) == (0, 0, 0)


def test_a_small_difference_on_the_same_images_is_found_where_the_intervals_overlap() -> None:
    scores_NC, targets_NC = made_up(400, seed=4)
    better_NC = scores_NC + 0.1 * targets_NC
    reports = [evaluate(each, targets_NC, k=(1,)) for each in (better_NC, scores_NC)]
    draws = [draw_metrics(each, targets_NC, k=(1,)) for each in (better_NC, scores_NC)]
    better, plain = (intervals(*pair)["mAP"] for pair in zip(reports, draws, strict=True))
    assert better.low < plain.high
    assert paired_differences(reports[0], draws[0], reports[1], draws[1])["mAP"].low > 0


def test_a_label_that_a_draw_misses_stays_out_of_its_mean() -> None:
    # One present image, always ranked first: the label's precision is 1 in every draw that holds it.
    scores_NC, targets_NC = np.array([[2.0], [1.0], [0.0]]), np.array([[1], [-1], [-1]])
    drawn = draw_metrics(scores_NC, targets_NC, k=(1,), draws=50)["mAP"]
    assert set(drawn) == {0.0, 100.0}
    both = draw_metrics(np.repeat(scores_NC, 2, 1), np.array([[1, -1], [-1, -1], [-1, -1]]), k=(1,), draws=50)["mAP"]
    assert set(both) == {0.0, 50.0}


def test_one_draw_gives_no_spread() -> None:
    with pytest.raises(LesaError, match="1 draws give no spread"):
        draw_metrics(*made_up(10, seed=0), k=(1,), draws=1)
