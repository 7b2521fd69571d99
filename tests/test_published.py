"""The published rows: complete, sourced, consistent in themselves, and compared only where the test set is the same."""

import json
import re
from dataclasses import asdict, fields
from importlib.resources import files

import pytest

from lesa.errors import LesaError
from lesa.evaluation.published import (
    DATA_SETS,
    TASKS,
    PublishedRow,
    all_rows,
    comparable,
    fingerprint_bounds,
    published_rows,
)

ROWS = all_rows()
FILE = json.loads((files("lesa.evaluation") / "published.json").read_text(encoding="utf-8"))
FIELDS = {field.name for field in fields(PublishedRow)}

# What the sources print wrongly: an F1 that its own P and R do not give, and rows whose values at two K imply two
# different test sets (the first by a factor of two, the second by 0.2 %). Their notes say so.
WRONG_F1 = {("open-images", "multi-label", "CNN-RNN", "F1@20")}
CONTRADICTORY = {("open-images", "multi-label", "WSABIE"), ("nus-wide", "multi-label", "CNN-RNN")}


def name_of(row: PublishedRow) -> tuple[str, str, str]:
    return (row.data_set, row.task, row.method)


def of_year(rows: list[PublishedRow], year: int) -> list[PublishedRow]:
    return [row for row in rows if row.year == year]


def the_row(data_set: str, task: str, method: str) -> PublishedRow:
    """The one row of that name that is not of the precursor paper of 2019."""
    [row] = [row for row in published_rows(data_set, task) if row.method == method and row.year > 2019]
    return row


def test_the_file_has_the_fields_of_the_dataclass_and_a_legend_for_each() -> None:
    assert set(FILE) == {"legend", "rows"}
    assert set(FILE["legend"]) == FIELDS
    assert all(set(row) == FIELDS for row in FILE["rows"])
    assert [asdict(row) for row in ROWS] == FILE["rows"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(name_of(row)))
def test_a_row_is_well_formed(row: PublishedRow) -> None:
    assert row.data_set in DATA_SETS
    assert row.task in TASKS
    assert 2019 <= row.year <= 2025
    assert row.status in ("verified", "derived", "secondary")
    assert row.averaging in (None, "micro", "macro")
    assert row.rules in (None, "lesa", "biam_oi", "miil")
    assert row.method.strip()
    assert len(row.source) > 10
    assert row.note is None or row.note.endswith((".", ")."))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(name_of(row)))
def test_figures_are_percentages_with_known_names_and_the_decimals_that_the_row_says(row: PublishedRow) -> None:
    assert row.metrics
    for name, value in row.metrics.items():
        assert re.fullmatch(r"(P|R|F1)@\d+|(weighted )?mAP", name)
        assert 0 < value < 100
        assert value == round(value, row.decimals)


def test_no_row_stands_twice() -> None:
    keys = [(*name_of(row), row.year, row.backbone) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_every_data_set_and_task_has_rows_the_oldest_first() -> None:
    assert sum(len(published_rows(data_set, task)) for data_set in DATA_SETS for task in TASKS) == len(ROWS)
    for data_set in DATA_SETS:
        for task in TASKS:
            years = [row.year for row in published_rows(data_set, task)]
            assert years
            assert years == sorted(years)


def test_an_unknown_data_set_or_task_is_named_with_what_there_is() -> None:
    with pytest.raises(LesaError, match=r"'nuswide'; did you mean 'nus-wide'\? There are: nus-wide, open-images"):
        published_rows("nuswide", "ZSL")
    with pytest.raises(LesaError, match=r"no task 'zsl'.*GZSL, ZSL, multi-label"):
        published_rows("nus-wide", "zsl")


def f1_bounds(precision: float, recall: float, half: float) -> tuple[float, float]:
    """F1 grows with both precision and recall; it is rounded itself."""
    low, high = (
        (p * r * 2 / (p + r)) for p, r in ((precision - half, recall - half), (precision + half, recall + half))
    )
    return low - half, high + half


def wrong_f1(row: PublishedRow) -> set[str]:
    half = 0.5 * 10**-row.decimals + 1e-9
    ks = [name[3:] for name in row.metrics if name.startswith("F1@") and f"P@{name[3:]}" in row.metrics]
    bounds = {k: f1_bounds(row.metrics[f"P@{k}"], row.metrics[f"R@{k}"], half) for k in ks}
    return {f"F1@{k}" for k, (low, high) in bounds.items() if not low <= row.metrics[f"F1@{k}"] <= high}


def test_f1_follows_from_precision_and_recall_within_rounding_except_where_the_note_says_so() -> None:
    assert {(*name_of(row), name) for row in ROWS for name in wrong_f1(row)} == WRONG_F1
    assert all("inconsistent" in the_row(*key[:3]).note for key in WRONG_F1)


def test_the_test_set_of_a_row_is_the_same_at_every_k_except_where_the_note_says_so() -> None:
    micro = [(row, fingerprint_bounds(row)) for row in ROWS if row.averaging == "micro" and fingerprint_bounds(row)]
    contradictory = {
        name_of(row) for row, bounds in micro if max(low for low, _ in bounds) > min(high for _, high in bounds)
    }
    assert contradictory == CONTRADICTORY
    assert all("inconsistent" in the_row(*key).note for key in CONTRADICTORY)


def test_the_fingerprint_is_given_exactly_where_the_row_shows_it() -> None:
    for row in ROWS:
        agrees = None if row.positives_per_image is None else comparable(row, row.positives_per_image)
        shows = row.averaging == "micro" and bool(fingerprint_bounds(row))
        assert agrees is (True if shows and name_of(row) != ("open-images", "multi-label", "WSABIE") else None)


def test_the_published_nus_wide_rows_were_judged_on_all_test_images() -> None:
    rows = of_year(published_rows("nus-wide", "ZSL"), 2020)
    assert len(rows) == 6
    assert all(comparable(row, 1.876) for row in rows)
    assert all(comparable(row, 1.876, tolerance=0) for row in rows if row.decimals == 1)


def test_a_row_on_a_filtered_test_set_is_not_comparable_with_all_images() -> None:
    row = the_row("nus-wide", "ZSL", "(ML)^2P-Encoder")
    assert comparable(row, 1.876) is False
    assert comparable(row, 2.412) is True


def test_multi_label_rows_were_judged_on_labelled_images() -> None:
    nus_wide = published_rows("nus-wide", "multi-label")
    assert [comparable(row, 2.41) for row in nus_wide] == [True] * 9
    assert [comparable(row, 1.876) for row in nus_wide] == [False] * 9
    open_images = [row for row in of_year(published_rows("open-images", "multi-label"), 2020) if row.method != "WSABIE"]
    assert [comparable(row, 8.3) for row in open_images] == [True] * 7


def test_the_two_test_sets_of_open_images_are_told_apart() -> None:
    lesa, biam = (the_row("open-images", "ZSL", method) for method in ("LESA (M=10)", "BiAM"))
    assert comparable(lesa, 0.27) is True
    assert comparable(lesa, 1.28) is False
    assert comparable(biam, 0.27) is False
    assert comparable(biam, 1.28) is True


def test_one_significant_digit_of_precision_bounds_the_fingerprint_loosely() -> None:
    row = the_row("open-images", "ZSL", "LESA (M=10)")
    # P@10 = 0.7, R@10 = 25.6 and P@20 = 0.5, R@20 = 37.4: the true values lie up to 0.05 away.
    assert fingerprint_bounds(row) == [
        pytest.approx((10 * 0.65 / 25.65, 10 * 0.75 / 25.55)),
        pytest.approx((20 * 0.45 / 37.45, 20 * 0.55 / 37.35)),
    ]
    assert comparable(row, 0.26, tolerance=0) is True
    assert comparable(row, 0.25, tolerance=0) is False


def test_nobody_can_tell_without_precision_and_recall_or_from_a_row_that_contradicts_itself() -> None:
    assert comparable(the_row("nus-wide", "ZSL", "ML-Decoder"), 1.876) is None
    assert comparable(the_row("open-images", "GZSL", "SDL"), 8.68) is None
    assert comparable(the_row("open-images", "multi-label", "WSABIE"), 8.3) is None


def test_macro_averages_are_never_comparable() -> None:
    for data_set in DATA_SETS:
        rows = of_year(published_rows(data_set, "ZSL"), 2019)
        assert rows
        assert all(comparable(row, value) is False for row in rows for value in (0.27, 1.876, 2.41))
