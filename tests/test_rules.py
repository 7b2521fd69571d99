"""Reports under named rules: what they count, what must not change them, what they refuse."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from lesa.errors import LesaError
from lesa.evaluation.report import Report, by_task, evaluate, task_columns
from lesa.evaluation.rules import RULES
from lesa.labels import Vocabulary

SCORES = np.array([[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0], [9.0, 1.0, 8.0, 2.0]])
TARGETS = np.array([[1, -1, 1, -1], [-1, -1, -1, 1], [0, 1, 0, -1]], np.int8)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 10), st.integers(3, 6)))
    scores_NC = draw(arrays(np.float64, shape, elements=st.integers(-9, 9).map(float)))
    return scores_NC, draw(arrays(np.int8, shape, elements=st.integers(-1, 1)))


def metrics(report: Report) -> list[float]:
    """All metrics of a report in one list."""
    at_k = [value for table in (report.precision, report.recall, report.f1) for value in table.values()]
    means = [report.mean_average_precision, report.weighted_mean_average_precision, report.positives_per_image]
    return [*at_k, *means, *(0.0 if each is None else each for each in report.average_precision_C)]


def test_a_report_by_hand() -> None:
    report = evaluate(SCORES, TARGETS, rules="lesa", k=(2,))
    assert (report.rules, report.images, report.labels) == ("lesa", 3, 4)
    assert report.positives_per_image == pytest.approx(4 / 3)
    assert report.precision == {2: pytest.approx(100 * 2 / 6)}
    assert report.recall == {2: pytest.approx(100 * 2 / 4)}
    assert report.f1 == {2: pytest.approx(40.0)}
    # Annotated scores by label: 5+ 1-; 4- 2- 1+; 3+ 3-; 2- 4+ 2-.
    assert report.average_precision_C == pytest.approx((100.0, 100 / 3, 50.0, 100.0))
    assert report.mean_average_precision == pytest.approx((100 + 100 / 3 + 50 + 100) / 4)


def test_true_and_false_are_present_and_absent() -> None:
    for rules in RULES:
        assert evaluate(SCORES, TARGETS > 0, rules, k=(1,)) == evaluate(SCORES, np.sign(TARGETS - 0.5), rules, k=(1,))


# Three small cases, each metric worked out by hand.
UNLABELLED = (
    # Images 1 and 3 carry no label, label 2 was never annotated.
    np.array([[0.9, 0.1, 0.5], [0.8, 0.7, 0.2], [0.3, 0.6, 0.4], [0.2, 0.3, 0.1]]),
    np.array([[1, -1, 0], [-1, 0, 0], [1, 1, 0], [-1, -1, 0]]),
    1,  # Best labels: 0 (hit), 0, 1 (hit), 1: two hits of three present labels.
)
TIED = (
    # Label 0 scores the same everywhere; label 1 is everywhere and best everywhere but in no order of interest.
    np.array([[0.5, 0.9], [0.5, 0.8], [0.5, 0.7], [0.5, 0.6]]),
    np.array([[-1, 1], [-1, 1], [-1, 1], [1, 1]]),
    1,  # Four hits of five present labels.
)
DENIED = (
    # Label 2 was only ever denied, and only in image 1, which carries no label.
    np.array([[3, 2, 1], [1, 2, 3], [2, 3, 1]]),
    np.array([[1, -1, 0], [-1, 0, -1], [1, 1, 0]]),
    2,  # The best two: 0 1 (one hit), 2 1 (none), 1 0 (two hits): three hits of three present labels.
)


@pytest.mark.parametrize(
    ("case", "rules", "images", "labels", "at_k", "precisions"),
    [
        # Label 0: + - + -. Label 1: + - -, image 1 masked.
        (UNLABELLED, "lesa", 4, 3, (2 / 4, 2 / 3, 4 / 7), (5 / 6, 1, 0)),
        (UNLABELLED, "biam_oi", 2, 2, (2 / 2, 2 / 3, 4 / 5), (1, 1, None)),
        (UNLABELLED, "miil", 2, 3, (2 / 2, 2 / 3, 4 / 5), (1, 1, 0)),
        (UNLABELLED, "openimages", 4, 2, None, (5 / 6, 1, None)),
        # Label 1 with image 1 as absent: - + - -.
        (UNLABELLED, "sklearn", 4, 3, None, (5 / 6, 1 / 2, 0)),
        (TIED, "lesa", 4, 2, (4 / 4, 4 / 5, 8 / 9), (1 / 4, 1)),
        # The one present image stands last in the file.
        (TIED, "biam_oi", 4, 2, (4 / 4, 4 / 5, 8 / 9), (1 / 4, 1)),
        (TIED, "miil", 4, 2, (4 / 4, 4 / 5, 8 / 9), (1, 1)),
        (TIED, "openimages", 4, 2, None, (1 / 4, 1)),
        (TIED, "sklearn", 4, 2, None, (1 / 4, 1)),
        (DENIED, "lesa", 3, 3, (3 / 6, 3 / 3, 6 / 9), (1, 1, 0)),
        (DENIED, "biam_oi", 2, 2, (3 / 4, 3 / 3, 6 / 7), (1, 1, None)),
        (DENIED, "miil", 2, 3, (3 / 4, 3 / 3, 6 / 7), (1, 1, 0)),
        (DENIED, "openimages", 3, 3, None, (1, 1, 0)),
        (DENIED, "sklearn", 3, 3, None, (1, 1, 0)),
    ],
)
def test_every_preset_by_hand(
    case: tuple[np.ndarray, np.ndarray, int],
    rules: str,
    images: int,
    labels: int,
    at_k: tuple[float, float, float] | None,
    precisions: tuple[float | None, ...],
) -> None:
    scores_NC, targets_NC, k = case
    report = evaluate(scores_NC, targets_NC, rules, k=(k,))
    present_C = (targets_NC > 0).sum(axis=0)
    assert (report.images, report.labels) == (images, labels)
    assert report.positives_per_image == pytest.approx(present_C.sum() / images)
    found = (report.precision.get(k), report.recall.get(k), report.f1.get(k))
    assert found == (pytest.approx([100 * value for value in at_k]) if at_k else (None, None, None))
    assert report.average_precision_C == tuple(p if p is None else pytest.approx(100 * p) for p in precisions)
    counted = [p for p in precisions if p is not None]
    assert report.mean_average_precision == pytest.approx(100 * sum(counted) / len(counted))
    weighted = sum((p or 0) * present for p, present in zip(precisions, present_C, strict=True)) / present_C.sum()
    assert report.weighted_mean_average_precision == pytest.approx(100 * weighted)


@pytest.mark.parametrize("rules", ["biam_oi", "miil"])
def test_rules_that_leave_out_every_image_evaluate_nothing_and_say_so(rules: str) -> None:
    report = evaluate(np.ones((2, 3)), np.full((2, 3), -1), rules, k=(1,))
    assert (report.images, set(metrics(report))) == (0, {0.0})


def test_the_weighted_mean_counts_a_label_as_often_as_it_is_present() -> None:
    targets = np.array([[1, 1], [1, -1], [-1, -1]])
    report = evaluate(np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]), targets, k=(1,))
    assert report.mean_average_precision == pytest.approx((100 + 100 / 3) / 2)
    assert report.weighted_mean_average_precision == pytest.approx((2 * 100 + 100 / 3) / 3)


def test_labels_without_positives_count_0_and_break_nothing() -> None:
    report = evaluate(np.ones((2, 3)), np.full((2, 3), -1), k=(1, 3))
    assert set(metrics(report)) == {0.0}


def test_unannotated_images_are_masked_by_lesa_and_absent_for_sklearn() -> None:
    scores, targets = np.array([[3.0], [2.0], [1.0]]), np.array([[0], [1], [-1]])
    assert evaluate(scores, targets, "lesa", k=(1,)).mean_average_precision == 100.0
    assert evaluate(scores, targets, "sklearn").mean_average_precision == 50.0


def test_the_rules_sklearn_define_nothing_at_k() -> None:
    report = evaluate(SCORES, TARGETS, rules="sklearn", k=(3, 50))
    assert report.precision == report.recall == report.f1 == {}


@given(scored())
def test_the_rules_sklearn_are_scikit_learns_macro_average(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores_NC, targets_NC = case
    targets_NC[0] = 1  # scikit-learn warns about a label without positives
    expected = 100 * average_precision_score(targets_NC > 0, scores_NC, average="macro")
    assert evaluate(*case, rules="sklearn").mean_average_precision == pytest.approx(expected, abs=1e-10)


@given(scored(), st.sampled_from(sorted(RULES)))
def test_only_the_order_of_scores_counts(case: tuple[np.ndarray, np.ndarray], rules: str) -> None:
    scores_NC, targets_NC = case
    expected = evaluate(scores_NC, targets_NC, rules, k=(1, 3))
    for monotone in (lambda s: s**3 + s, np.exp, lambda s: 1e6 * s - 5):
        assert evaluate(monotone(scores_NC), targets_NC, rules, k=(1, 3)) == expected


@given(scored(), st.sampled_from([name for name, rule in RULES.items() if rule.ties == "grouped"]), st.data())
def test_the_order_of_images_does_not_count(
    case: tuple[np.ndarray, np.ndarray], rules: str, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(case[0]))))
    shuffled = evaluate(case[0][order], case[1][order], rules, k=(1, 3))
    assert metrics(shuffled) == pytest.approx(metrics(evaluate(*case, rules, k=(1, 3))), abs=1e-10)


@given(scored(), st.data())
def test_scores_of_unannotated_entries_never_move_average_precision_under_lesa(
    case: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    scores_NC, targets_NC = case
    other_NC = data.draw(arrays(np.float64, scores_NC.shape, elements=st.floats(-1e9, 1e9)))
    changed_NC = np.where(targets_NC == 0, other_NC, scores_NC)
    before, after = (evaluate(s, targets_NC, "lesa", k=(1,)) for s in (scores_NC, changed_NC))
    assert after.average_precision_C == before.average_precision_C


@given(scored())
def test_the_fingerprint_can_be_read_off_precision_and_recall(case: tuple[np.ndarray, np.ndarray]) -> None:
    report = evaluate(*case, k=(1, 2, 3))
    for k in (1, 2, 3):
        if report.precision[k]:
            assert k * report.precision[k] / report.recall[k] == pytest.approx(report.positives_per_image)


def test_large_scores_are_not_squashed() -> None:
    scores = np.array([[40.0], [50.0], [60.0]])  # a sigmoid makes all three 1.0
    assert evaluate(scores, np.array([[-1], [-1], [1]]), k=(1,)).mean_average_precision == 100.0


def test_each_task_sees_its_own_columns() -> None:
    vocabulary = Vocabulary(unseen=("zebra",), seen=("cat", "dog", "owl"))
    reports = by_task(SCORES, TARGETS, vocabulary, rules="lesa", k=(1,))
    assert reports == {
        "ZSL": evaluate(SCORES[:, :1], TARGETS[:, :1], k=(1,)),
        "GZSL": evaluate(SCORES, TARGETS, k=(1,)),
        "seen": evaluate(SCORES[:, 1:], TARGETS[:, 1:], k=(1,)),
    }


def test_the_tasks_columns_follow_from_the_number_of_unseen_labels() -> None:
    assert task_columns(2, 5) == {"ZSL": slice(0, 2), "GZSL": slice(0, 5), "seen": slice(2, 5)}
    assert task_columns(0, 5) == {"GZSL": slice(0, 5), "seen": slice(0, 5)}
    assert task_columns(5, 5) == {"ZSL": slice(0, 5), "GZSL": slice(0, 5)}


def test_a_task_without_labels_is_left_out() -> None:
    vocabulary = Vocabulary(unseen=(), seen=("ant", "cat", "dog", "owl"))
    assert list(by_task(SCORES, TARGETS, vocabulary, k=(1,))) == ["GZSL", "seen"]


@pytest.mark.parametrize("rules", sorted(RULES))
def test_a_report_survives_json(rules: str) -> None:
    report = evaluate(SCORES.astype(np.float32), TARGETS, rules, k=(1, 3))
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_report_of_another_version_is_refused() -> None:
    values = evaluate(SCORES, TARGETS, k=(1,)).to_dict()
    with pytest.raises(LesaError, match="not a report of this version: images, pictures"):
        Report.from_dict({**{k: v for k, v in values.items() if k != "images"}, "pictures": 3})


def test_reports_compare_by_value() -> None:
    report = evaluate(SCORES, TARGETS, k=(1,))
    assert report == evaluate(SCORES, TARGETS, k=(1,))
    assert report != replace(report, images=4)


@pytest.mark.parametrize(
    ("scores", "targets", "options", "message"),
    [
        (SCORES, TARGETS, {"rules": "lessa"}, "no metric rules 'lessa'; did you mean 'lesa'"),
        (SCORES[:2], TARGETS, {}, r"scores have shape \(2, 4\) and targets \(3, 4\)"),
        (SCORES[0], TARGETS[0], {}, "expected both images x labels"),
        (SCORES[:0], TARGETS[:0], {}, "0 images x 4 labels leave nothing to evaluate"),
        (SCORES, TARGETS, {"k": (3, 5)}, "K is 5, but there are 4 labels"),
        (SCORES, TARGETS, {"k": (0,)}, "K is 0, but there are 4 labels"),
        (np.where(SCORES == 8, np.nan, SCORES), TARGETS, {}, "score at row 2, column 2 is nan"),
        (np.where(SCORES == 9, -np.inf, SCORES), TARGETS, {}, "score at row 2, column 0 is -inf"),
        (SCORES, np.where(SCORES == 3, 2, TARGETS), {}, "target at row 0, column 2 is 2, expected 1"),
        (SCORES, TARGETS * 0.5, {}, "target at row 0, column 0 is 0.5"),
    ],
)
def test_input_that_cannot_be_evaluated_is_named(
    scores: np.ndarray, targets: np.ndarray, options: dict[str, object], message: str
) -> None:
    with pytest.raises(LesaError, match=message):
        evaluate(scores, targets, **{"k": (1,), **options})


def test_scores_that_do_not_fit_the_vocabulary_are_refused() -> None:
    with pytest.raises(LesaError, match=r"shape \(3, 4\), expected one column for each of the 2 labels"):
        by_task(SCORES, TARGETS, Vocabulary(unseen=("zebra",), seen=("cat",)))
