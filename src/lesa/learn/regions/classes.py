"""The classes that a backbone already knows by name: the rows of its own classifier, in the space of its regions."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lesa.errors import LesaError
from lesa.files import replacing

CLASSES_FILE = "classes.safetensors"


@dataclass(frozen=True, eq=False)
class Classes:
    """A linear classifier that acts on the mean region: the logit of class k is `rows_KD[k] . mean region + bias_K[k]`.

    Raises:
        LesaError: the numbers of names, rows and biases differ, or a class has no name.
    """

    names: tuple[tuple[str, ...], ...]
    """The names of each class: synonyms, as a dictionary has them (K classes)."""
    rows_KD: NDArray[np.float32]
    """The classifier's rows, `K, D`."""
    bias_K: NDArray[np.float32]
    """Its biases, `K`."""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        classes = len(self.names)
        if self.rows_KD.ndim != 2 or len(self.rows_KD) != classes or self.bias_K.shape != (classes,):
            raise LesaError(
                f"{classes} classes with rows of shape {self.rows_KD.shape} and biases of shape {self.bias_K.shape}: "
                "expected one row and one bias per class"
            )
        if not all(names and all(names) for names in self.names):
            raise LesaError("a class of the backbone has no name")

    def projected(self, mean_D: NDArray[np.float32], components: NDArray[np.float32]) -> "Classes":
        """Return the classes for projected regions, `(region - mean_D) @ components`.

        The part of a row outside the components is lost, as it is of the regions. The mean's share goes into the bias.
        """
        return Classes(self.names, self.rows_KD @ components, self.bias_K + self.rows_KD @ mean_D)

    def to_bytes(self) -> bytes:
        """Return rows and biases as a safetensors file holds them; equal numbers give equal bytes."""
        return save({"bias": np.ascontiguousarray(self.bias_K), "rows": np.ascontiguousarray(self.rows_KD)})


def describe_classes(classes: Classes | str) -> dict[str, Any]:
    """Return the entry `classes` of a store's manifest: names and SHA-256 of the file, or why there are no classes."""
    if isinstance(classes, str):
        return {"reason": classes}
    return {"names": classes.names, "sha256": hashlib.sha256(classes.to_bytes()).hexdigest()}


def write_classes(folder: Path, classes: Classes) -> None:
    """Write rows and biases into a region store's folder; the names are in its manifest."""
    with replacing(folder / CLASSES_FILE) as temporary:
        temporary.write_bytes(classes.to_bytes())


def read_classes(folder: Path, entry: Mapping[str, Any]) -> Classes | str:
    """Read the classes of a region store, or the reason why it has none.

    Args:
        folder: the store.
        entry: the entry `classes` of its manifest.

    Raises:
        LesaError: the file does not exist, was changed, or does not fit the entry.
    """
    if "names" not in entry:
        return str(entry.get("reason", "the store was made before classes were kept"))
    path = folder / CLASSES_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LesaError(f"{path} cannot be read ({error.strerror}): extract the regions again") from None
    if hashlib.sha256(content).hexdigest() != entry.get("sha256"):
        raise LesaError(f"{path} is not the file that the store's manifest names (SHA-256): extract the regions again")
    try:
        tensors = load(content)
        return Classes(tuple(tuple(names) for names in entry["names"]), tensors["rows"], tensors["bias"])
    except (SafetensorError, KeyError, TypeError, LesaError) as error:
        raise LesaError(f"{path} cannot be read ({error}): extract the regions again") from None
