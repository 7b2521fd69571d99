"""Any method's score matrix, judged: files of scores and targets -> a report, intervals, the difference to another."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lesa.errors import LesaError
from lesa.evaluation.bootstrap import Interval, draw_metrics, intervals, paired_differences
from lesa.evaluation.metrics import row_blocks
from lesa.evaluation.rules import Report, evaluate, refuse_targets


@dataclass(frozen=True)
class MatrixEvaluation:
    """One score matrix under one set of rules."""

    report: Report
    intervals: dict[str, Interval]
    """Each metric with its 95 % interval; empty where no draws were asked for."""
    difference: dict[str, Interval]
    """Each metric minus that of the other scores; empty where none were given."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON file can hold."""
        return asdict(self) | {"report": self.report.to_dict()}


def _read_matrix(path: Path, name: str) -> NDArray[Any]:
    """Read a matrix of numbers, images x labels: `.npy` (memory-mapped, any size) or `.safetensors`.

    Args:
        path: the file.
        name: the tensor to take where a safetensors file holds several.

    Raises:
        LesaError: the file is missing, of another kind, or holds no such matrix.
    """
    try:
        if path.suffix == ".npy":
            matrix: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                keys = list(file.keys())
                matrix = file.get_tensor(keys[0] if len(keys) == 1 else name)
        else:
            raise LesaError(f"{path} is neither .npy nor .safetensors: save the matrix as one of them")
    except FileNotFoundError:
        raise LesaError(f"{path} does not exist") from None
    except (ValueError, TypeError, AttributeError, EOFError, SafetensorError) as error:
        raise LesaError(
            f"{path} holds no matrix that can be read ({error}): save plain numbers, such as float32, with numpy.save"
        ) from None
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        raise LesaError(f"{path} holds {matrix.dtype} of shape {matrix.shape}, expected numbers, images x labels")
    return matrix


def _read_targets(path: Path, zeros_absent: bool) -> NDArray[Any]:
    """Read targets as `_read_matrix`; by option, 0 becomes -1.

    Raises:
        LesaError: as `_read_matrix`, or all are 0 and 1: 0 would mean "not annotated", and average precision of labels
            without one absent image is 100.
    """
    targets_NC = _read_matrix(path, "targets")
    if zeros_absent:
        refuse_targets(targets_NC)
        return np.where(targets_NC > 0, np.int8(1), np.int8(-1))
    if targets_NC.dtype != bool and not any((targets_NC[rows] < 0).any() for rows in row_blocks(len(targets_NC))):
        raise LesaError(
            f"{path} says -1 (absent) nowhere, and 0 means not annotated: "
            "say --zeros-absent if its zeros mean absent, else mark what is absent with -1"
        )
    return targets_NC


def read_files(
    scores: Path, targets: Path, against: Path | None, zeros_absent: bool
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return scores, targets and, if given, the other scores.

    Raises:
        LesaError: a file cannot be read, or their shapes differ.
    """
    targets_NC = _read_targets(targets, zeros_absent)
    matrices = [_read_matrix(path, "scores") for path in (scores, against) if path]
    for path, matrix_NC in zip((scores, against), matrices, strict=False):
        if matrix_NC.shape != targets_NC.shape:
            raise LesaError(
                f"{path} has shape {matrix_NC.shape} and {targets} {targets_NC.shape}: "
                "both must hold the same images and the same labels"
            )
    return matrices[0], targets_NC, matrices[1] if against else None


def tasks(labels: int, unseen: int) -> dict[str, slice]:
    """Return the columns of each task, of matrices whose first `unseen` columns are the unseen labels.

    Raises:
        LesaError: there are not so many columns.
    """
    if not 0 <= unseen < labels:
        raise LesaError(f"{unseen} unseen labels of {labels}: expected at least 0 and fewer than there are columns")
    if not unseen:
        return {"all labels": slice(0, labels)}
    return {"ZSL": slice(0, unseen), "GZSL": slice(0, labels), "seen": slice(unseen, labels)}


def evaluate_matrix(
    scores_NC: NDArray[Any],
    targets_NC: NDArray[Any],
    rules: str,
    k: Sequence[int],
    draws: int = 0,
    other_NC: NDArray[Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MatrixEvaluation:
    """Judge scores by named rules; with draws also their spread over images, and their difference to other scores.

    Args:
        scores_NC: as for `protocols.evaluate`.
        targets_NC: likewise.
        rules: likewise.
        k: likewise.
        draws: bootstrap draws; none if 0.
        other_NC: another method's scores of the same images and labels; needs draws.
        progress: called with labels done and labels in all.

    Raises:
        LesaError: as `protocols.evaluate`.
    """
    report = evaluate(scores_NC, targets_NC, rules, k)
    if not draws:
        return MatrixEvaluation(report, {}, {})
    drawn = draw_metrics(scores_NC, targets_NC, rules, k, draws, progress=progress)
    if other_NC is None:
        return MatrixEvaluation(report, intervals(report, drawn), {})
    other = evaluate(other_NC, targets_NC, rules, k)
    other_drawn = draw_metrics(other_NC, targets_NC, rules, k, draws, progress=progress)
    return MatrixEvaluation(report, intervals(report, drawn), paired_differences(report, drawn, other, other_drawn))
