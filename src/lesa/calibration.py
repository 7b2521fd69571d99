"""Scores -> probabilities: the map that tagging needs. `lesa.fit_calibration` finds it on labelled photos.

    probability = sigmoid(slope * score + photo_factor * photo_offset + bias + seen_bias * [seen] + own bias)

`slope`, `photo_factor`, `bias` and `seen_bias` are shared by all labels (Platt 1999, "Probabilistic outputs for support
vector machines"). A photo's offset is log(mean(exp(score))) over the bundle's own labels: on some photos all scores are
higher, which says nothing about a label. `seen_bias` belongs to the labels that training photos carried. Generalized
zero-shot tagging needs it, because they score higher (Chao et al. 2016, "An empirical study and analysis of generalized
zero-shot learning", who subtract it from scores). A label's own bias says how often it is present beyond its score; it
is shrunk towards zero, by a strength that held-out photos choose. Words that were not calibrated have no own bias and
count as unseen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesa.errors import LesaError

if TYPE_CHECKING:
    pass

FORMAT = "lesa-calibration-2"

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities, and how it was found.

    Raises:
        LesaError: numbers that make no such map.
    """

    slope: float
    """Above zero: a higher score is a higher probability."""
    photo_factor: float
    """What the photo's offset is multiplied by."""
    bias: float
    """What is added for every label."""
    seen_bias: float
    """What is added for a label that training photos carried."""
    labels: Mapping[str, float]
    """What is added for single labels."""
    threshold: float
    """The least probability of a tag, unless another is asked for."""
    report: Mapping[str, Any]
    """How it was fitted: method, photos, labels, reliability before and after."""

    def __post_init__(self) -> None:
        """Refuse what gives no probabilities."""
        numbers = (self.slope, self.photo_factor, self.bias, self.seen_bias, self.threshold, *self.labels.values())
        # Not `<=`: NaN must not pass.
        if not all(map(math.isfinite, numbers)) or not self.slope > 0 or not 0 <= self.threshold <= 1:
            raise LesaError("a calibration needs finite numbers, a slope above 0 and a threshold from 0 to 1")

    def biases(self, names: Sequence[str], seen: Sequence[bool]) -> Doubles:
        """Return all that is added for each label, `C`; names that were not calibrated have the shared part alone."""
        own = [self.labels.get(name, 0.0) for name in names]
        return self.bias + self.seen_bias * np.asarray(seen, np.float64) + np.array(own, np.float64)

    def probabilities(self, scores_C: NDArray[Any], photo_offset: float, biases_C: NDArray[Any]) -> Doubles:
        """Return the probabilities of a photo's labels, `C`, from its `photo_level` and the labels' `biases`."""
        return sigmoid(self.slope * scores_C.astype(np.float64) + self.photo_factor * photo_offset + biases_C)

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON file can hold."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, fields: Any) -> "Calibration":
        """Rebuild it from what JSON holds.

        Raises:
            LesaError: it is of another version, or damaged.
        """
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise LesaError(f"expected a calibration of format {FORMAT!r}: calibrate again")
        try:
            labels = {str(name): float(bias) for name, bias in fields["labels"].items()}
            numbers = {
                name: float(fields[name]) for name in ("slope", "photo_factor", "bias", "seen_bias", "threshold")
            }
            return cls(labels=labels, report=dict(fields["report"]), **numbers)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LesaError(f"the calibration is damaged ({error!r}): calibrate again") from None


def photo_offset(scores_C: NDArray[Any]) -> float:
    """Return a photo's offset: log(mean(exp(score))) over the bundle's own labels."""
    most = float(scores_C.max())
    return most + math.log(float(np.exp(scores_C.astype(np.float64) - most).mean()))


def sigmoid(logits: NDArray[Any]) -> Doubles:
    """Return 1 / (1 + exp(-logits)), for any size of them."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, np.float64)))
