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
    has one more number, exp(-gamma |v - anchors|^2) @ prior, against a constant 1 in the code. With `near` it ends with
    exp(-near_gamma |v - anchors|^2) @ near, which vanishes far from the anchors.

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
    near_AE: Floats | None = None
    """What each anchor adds to the part for labels near it."""
    near_gamma: float = 1.0
    """The inverse width of that part's kernel."""

    def __post_init__(self) -> None:
        """Refuse parts that cannot be used."""
        matrices = {"anchors": self.anchors_AE, "weights": self.weights_AP, "near": self.near_AE}
        rows = {"lengths": self.lengths_P, "prior": self.prior_A}
        given = [(name, part, 2) for name, part in matrices.items()] + [(name, part, 1) for name, part in rows.items()]
        for name, part, dimensions in given:
            if part is None:
                continue
            if part.ndim != dimensions:
                raise LesaError(f"the label map's {name} have {part.ndim} dimensions: expected {dimensions}")
            expected = self.weights_AP.shape[1] if name == "lengths" else len(self.anchors_AE)
            if len(part) != expected:
                raise LesaError(f"the label map's {name} have {len(part)} rows: expected {expected}")
            if not np.isfinite(part).all():
                raise LesaError(f"the label map's {name} have a number that is not finite")
        if not (0 < self.gamma < np.inf and 0 < self.near_gamma < np.inf):
            raise LesaError("the label map has a gamma that is not a positive number")

    @property
    def code_size(self) -> int:
        """The size of a point, which is that of a code."""
        near = 0 if self.near_AE is None else self.near_AE.shape[1]
        return int(self.weights_AP.shape[1]) + (self.prior_A is not None) + int(near)

    def points(self, vectors_CE: Floats) -> Floats:
        """Return the labels' points among the codes, `C, code size`.

        Args:
            vectors_CE: label vectors of unit length.
        """
        distances_CA = 2 - 2 * (vectors_CE @ self.anchors_AE.T)
        similarity_CA = np.exp(-np.float32(self.gamma) * distances_CA)
        points_CP: Floats = similarity_CA @ self.weights_AP
        if self.lengths_P is not None:
            lengths_C1 = np.linalg.norm(points_CP * self.lengths_P, axis=1, keepdims=True)
            points_CP = points_CP / np.maximum(lengths_C1, np.finfo(np.float32).tiny)
        parts = [points_CP]
        if self.prior_A is not None:
            parts.append((similarity_CA @ self.prior_A)[:, None])
        if self.near_AE is not None:
            parts.append(np.exp(-np.float32(self.near_gamma) * distances_CA) @ self.near_AE)
        return np.concatenate(parts, axis=1)

    def to_bytes(self, half: bool = False) -> bytes:
        """Return the map as a safetensors file holds it, in 32 bits, or its matrices in 16."""
        kind = np.float16 if half else np.float32
        matrices = {"anchors": self.anchors_AE, "weights": self.weights_AP, "near": self.near_AE}
        rows = {"lengths": self.lengths_P, "prior": self.prior_A}
        tensors = {name: part.astype(kind) for name, part in matrices.items() if part is not None}
        tensors |= {name: part for name, part in rows.items() if part is not None}
        return save(tensors | {"gamma": np.array([self.gamma, self.near_gamma][: 1 + (self.near_AE is not None)])})

    @classmethod
    def from_bytes(cls, content: bytes) -> "LabelMap":
        """Read what `to_bytes` wrote.

        Raises:
            LesaError: the content is damaged, or its parts do not fit each other.
        """
        try:
            tensors = load(content)
            gamma, near_gamma = [*tensors.pop("gamma").astype(np.float64).tolist(), 1.0][:2]
            parts = {name: part.astype(np.float32) for name, part in tensors.items()}
            anchors_AE, weights_AP = parts["anchors"], parts["weights"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise LesaError(f"the label map cannot be read ({error!r})") from None
        rows = parts.get("lengths"), parts.get("prior"), parts.get("near")
        return cls(anchors_AE, weights_AP, float(gamma), *rows, float(near_gamma))
