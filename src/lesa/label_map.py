"""The label side of a model that does not score labels by their vectors: label vectors -> points among the codes.

The map is a kernel regression that was solved in training (`lesa.learn.baselines.synthesised`). It is a function of a
label's vector, so it holds for any label, and a photo's codes do not depend on it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lesa.errors import LesaError

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """phi(v) = exp(-gamma |v - anchors|^2) @ weights, for label vectors v of unit length.

    With `lengths` a label's point is phi(v) / |lengths phi(v)|: its classifier has unit length. With `prior` the point
    has one more number, exp(-gamma |v - anchors|^2) @ prior, against a constant 1 in the code.

    Raises:
        LesaError: the parts do not fit each other, or a number is not finite.
    """

    anchors_AE: Floats
    """The label vectors that the map was learned from, of unit length."""
    weights_AP: Floats
    """What each anchor adds to phi."""
    gamma: float
    """The kernel's inverse width."""
    lengths_P: Floats | None = None
    """The length of the classifier that belongs to each number of phi."""
    prior_A: Floats | None = None
    """What each anchor adds to a label's prior."""

    def __post_init__(self) -> None:
        """Refuse parts that cannot be used."""
        if self.anchors_AE.ndim != 2 or self.weights_AP.ndim != 2:
            raise LesaError("the label map's anchors or weights are not a matrix")
        expected = {"weights": len(self.anchors_AE), "lengths": self.weights_AP.shape[1], "prior": len(self.anchors_AE)}
        for name, part in {"weights": self.weights_AP, "lengths": self.lengths_P, "prior": self.prior_A}.items():
            if part is not None and (len(part) != expected[name] or part.ndim != 1 + (name == "weights")):
                raise LesaError(f"the label map's {name} have the shape {part.shape}: expected {expected[name]} rows")
        parts = self.anchors_AE, self.weights_AP, self.lengths_P, self.prior_A
        if not (self.gamma > 0 and all(np.isfinite(part).all() for part in parts if part is not None)):
            raise LesaError("the label map has a number that is not finite, or a gamma that is not positive")

    @property
    def code_size(self) -> int:
        """The size of a point, which is that of a code."""
        return int(self.weights_AP.shape[1]) + (self.prior_A is not None)

    def points(self, vectors_CE: Floats) -> Floats:
        """Return the labels' points among the codes, `C, code size`.

        Args:
            vectors_CE: label vectors of unit length.
        """
        similarity_CA = np.exp(-np.float32(self.gamma) * (2 - 2 * (vectors_CE @ self.anchors_AE.T)))
        points_CP: Floats = similarity_CA @ self.weights_AP
        if self.lengths_P is not None:
            lengths_C1 = np.linalg.norm(points_CP * self.lengths_P, axis=1, keepdims=True)
            points_CP = points_CP / np.maximum(lengths_C1, np.finfo(np.float32).tiny)
        if self.prior_A is None:
            return points_CP
        return np.concatenate([points_CP, (similarity_CA @ self.prior_A)[:, None]], axis=1)

    def to_bytes(self, half: bool = False) -> bytes:
        """Return the map as a safetensors file holds it, in 32 bits, or anchors and weights in 16."""
        kind = np.float16 if half else np.float32
        tensors = {"anchors": self.anchors_AE.astype(kind), "weights": self.weights_AP.astype(kind)}
        further = {"lengths": self.lengths_P, "prior": self.prior_A, "gamma": np.array([self.gamma], np.float64)}
        return save(tensors | {name: part for name, part in further.items() if part is not None})

    @classmethod
    def from_bytes(cls, content: bytes) -> "LabelMap":
        """Read what `to_bytes` wrote.

        Raises:
            LesaError: the content is damaged, or its parts do not fit each other.
        """
        try:
            tensors = load(content)
            (gamma,) = tensors.pop("gamma").tolist()
            parts = {name: part.astype(np.float32) for name, part in tensors.items()}
            anchors_AE, weights_AP = parts["anchors"], parts["weights"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise LesaError(f"the label map cannot be read ({error!r})") from None
        return cls(anchors_AE, weights_AP, float(gamma), parts.get("lengths"), parts.get("prior"))
