"""Files of any method's scores and of targets -> a report, intervals, and the difference to another method."""

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
from lesa.evaluation.report import Report, evaluate, refuse_targets, task_columns


@dataclass(frozen=True)
class MatrixEvaluation:
    """The evaluation of one score matrix by one set of rules."""

    report: Report
    intervals: dict[str, Interval]
    """Each metric with its 95 % interval; empty without draws."""
    difference: dict[str, Interval]
    """Each metric minus that of the other scores; empty if there are no other scores."""

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        return asdict(self) | {"report": self.report.to_dict()}


def _read_matrix(path: Path, name: str) -> NDArray[Any]:
    """Read a matrix of numbers, images x labels: `.npy` (memory-mapped, any size) or `.safetensors`.

    Args:
        path: the file.
        name: the tensor to read if a safetensors file contains several.

    Raises:
        LesaError: the file is missing, is of another kind, or does not contain such a matrix.
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
    """Read targets as `_read_matrix`; with `zeros_absent`, 0 becomes -1.

    Raises:
        LesaError: as `_read_matrix`, or all targets are 0 and 1. Then 0 would mean "not annotated", and the average
            precision of labels without an absent image is 100.
    """
    targets_NC = _read_matrix(path, "targets")
    if zeros_absent:
        refuse_targets(targets_NC)
        return np.where(targets_NC > 0, np.int8(1), np.int8(-1))
    if targets_NC.dtype != bool and not any((targets_NC[rows] < 0).any() for rows in row_blocks(len(targets_NC))):
        raise LesaError(
            f"{path} contains no -1 (absent), and 0 means not annotated: "
            "add --zeros-absent if its zeros mean absent, or write -1 for absent labels"
        )
    return targets_NC


def read_files(
    scores: Path, targets: Path, against: Path | None, zeros_absent: bool
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return the scores, the targets and the other scores (None if `against` is None).

    Raises:
        LesaError: a file cannot be read, or the shapes differ.
    """
    targets_NC = _read_targets(targets, zeros_absent)
    matrices = [_read_matrix(path, "scores") for path in (scores, against) if path]
    for path, matrix_NC in zip((scores, against), matrices, strict=False):
        if matrix_NC.shape != targets_NC.shape:
            raise LesaError(
                f"{path} has shape {matrix_NC.shape} and {targets} {targets_NC.shape}: "
                "both must have the same images and the same labels"
            )
    return matrices[0], targets_NC, matrices[1] if against else None


def matrix_tasks(labels: int, unseen: int) -> dict[str, slice]:
    """Return the columns of each task; without unseen labels the only task is "all labels".

    Args:
        labels: number of columns.
        unseen: number of unseen labels, which are the first columns.

    Raises:
        LesaError: the number of unseen labels is not possible.
    """
    if not 0 <= unseen < labels:
        raise LesaError(f"{unseen} unseen labels of {labels} columns: give a number from 0 to {labels - 1}")
    return task_columns(unseen, labels) if unseen else {"all labels": slice(0, labels)}


def evaluate_matrix(
    scores_NC: NDArray[Any],
    targets_NC: NDArray[Any],
    rules: str,
    k: Sequence[int],
    draws: int = 0,
    other_NC: NDArray[Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MatrixEvaluation:
    """Evaluate scores by named rules. With draws, also give intervals and the difference to other scores.

    Args:
        scores_NC: as for `evaluate`.
        targets_NC: as for `evaluate`.
        rules: as for `evaluate`.
        k: as for `evaluate`.
        draws: number of bootstrap draws; no intervals if 0.
        other_NC: another method's scores for the same images and labels; used only with draws.
        progress: called with the number of labels done and the number of all labels.

    Raises:
        LesaError: as `evaluate`.
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
