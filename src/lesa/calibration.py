"""Scores -> probabilities: the map that tagging uses. `lesa.fit_calibration` fits it on labelled photos.

    probability = sigmoid(slope * score + photo_factor * photo_offset + bias + seen_bias * [seen] + own bias)

`slope`, `photo_factor`, `bias` and `seen_bias` are shared by all labels (Platt 1999, "Probabilistic outputs for support
vector machines"). A photo's offset is log(mean(exp(score))) over the bundle's own labels. It is needed because on some
photos the scores of all labels are higher. `seen_bias` is added for seen labels, the labels of training photos.
Generalized zero-shot tagging needs it, because seen labels score higher (Chao et al. 2016, "An empirical study and
analysis of generalized zero-shot learning", who subtract it from scores). A label's own bias corrects the probability
of a label that is present more or less often than its scores suggest. It is shrunk towards zero; held-out photos decide
how strongly. Words that were not calibrated have no own bias and are treated as unseen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesa.errors import LesaError

FORMAT = "lesa-calibration-2"

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities, with a report of its fit.

    Raises:
        LesaError: a number is not finite, the slope is not above 0, or the threshold is not from 0 to 1.
    """

    slope: float
    """Above zero: a higher score is a higher probability."""
    photo_factor: float
    """The factor of the photo's offset."""
    bias: float
    """A term for every label."""
    seen_bias: float
    """A term for seen labels."""
    labels: Mapping[str, float]
    """The own biases of single labels."""
    threshold: float
    """The least probability of a tag, unless another threshold is given."""
    report: Mapping[str, Any]
    """How it was fitted: method, photos, labels, reliability before and after."""

    def __post_init__(self) -> None:
        """Refuse numbers that do not give probabilities."""
        numbers = (self.slope, self.photo_factor, self.bias, self.seen_bias, self.threshold, *self.labels.values())
        # Not `<=`: NaN must not pass.
        if not all(map(math.isfinite, numbers)) or not self.slope > 0 or not 0 <= self.threshold <= 1:
            raise LesaError("a calibration needs finite numbers, a slope above 0 and a threshold from 0 to 1")

    def biases(self, names: Sequence[str], seen: Sequence[bool]) -> Doubles:
        """Return the sum of the biases of each label, `C`; names that were not calibrated get only the shared ones."""
        own = [self.labels.get(name, 0.0) for name in names]
        return self.bias + self.seen_bias * np.asarray(seen, np.float64) + np.array(own, np.float64)

    def probabilities(self, scores_C: NDArray[Any], photo_offset: float, biases_C: NDArray[Any]) -> Doubles:
        """Return the probabilities of a photo's labels, `C`, from its `photo_offset` and the labels' `biases`."""
        return sigmoid(self.slope * scores_C.astype(np.float64) + self.photo_factor * photo_offset + biases_C)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, fields: Any) -> "Calibration":
        """Rebuild it from the fields of a JSON file.

        Raises:
            LesaError: it has another version, or is damaged.
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
    # The greatest score is taken out first: its exponential may be too large for a float.
    greatest = float(scores_C.max())
    return greatest + math.log(float(np.exp(scores_C.astype(np.float64) - greatest).mean()))


def sigmoid(logits: NDArray[Any]) -> Doubles:
    """Return 1 / (1 + exp(-logits)); large logits do not overflow."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, np.float64)))
