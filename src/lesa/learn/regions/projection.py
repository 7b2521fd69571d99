"""Projecting regions to their principal components; extracting regions of new photos as a store was made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lesa.errors import LesaError
from lesa.files import replacing
from lesa.images import Preprocessing, open_photo, to_pixels
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.classes import Classes, describe_classes, write_classes
from lesa.learn.regions.graphs import RunBackbone, run_on
from lesa.learn.regions.store import RegionStore, StoreWriter, read_store_manifest

FILE = "projection.safetensors"
"""The projection's file in a store."""
PHOTOS = 64
"""Number of photos per batch."""


@dataclass(frozen=True)
class Projection:
    """A projection to principal components: (region - mean) times the components, without whitening."""

    mean_D: NDArray[np.float32]
    """The mean region of the photos that it was fitted on (D)."""
    components: NDArray[np.float32]
    """One component per column, the strongest one first (D, size); orthonormal."""

    def apply(self, regions_BRD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project regions: float32 `B, R, D` -> `B, R, size`."""
        projected: NDArray[np.float32] = np.matmul(regions_BRD - self.mean_D, self.components)
        return projected


def project(
    store: RegionStore,
    folder: Path,
    size: int,
    fit_names: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Fit the principal components of the named photos' regions and write the projected store.

    Args:
        store: the store of the regions.
        folder: the store to write; an unfinished one is started again.
        size: number of components to keep.
        fit_names: the photos to fit the components on (the training photos).
        progress: called with the numbers of steps done and of all steps; each photo is one step for the fit, if it
            takes part, and one for the projection.

    Returns:
        The share of the variance that the components explain, 0 to 1.

    Raises:
        LesaError: the store is projected already, the folder contains a finished store, a photo is missing, or the
            size exceeds the number of features or of regions.
    """
    rows = store.index(fit_names)
    _check_project(store, folder, size, len(rows))
    total = len(rows) + len(store)
    projection, explained = fit_projection(_batches(store, rows, lambda done: progress(done, total)), size)
    with replacing(folder / FILE) as temporary:
        save_file({"mean": projection.mean_D, "components": projection.components}, temporary)
    manifest = {key: store.manifest[key] for key in ("backbone", "preprocessing", "grid")}
    learned = {"file": FILE, "source_size": store.size, "photos": len(rows), "variance_kept": explained}
    classes = store.classes()
    if isinstance(classes, Classes):
        classes = classes.projected(projection.mean_D, projection.components)
        write_classes(folder, classes)
    manifest |= {"size": size, "projection": learned, "classes": describe_classes(classes)}
    with StoreWriter(folder, manifest) as writer:
        for name, reason in store.failed().items():
            writer.fail(name, reason)
        for regions_BRD in _batches(store, np.arange(len(store)), lambda done: progress(len(rows) + done, total)):
            names = store.names[writer.rows : writer.rows + len(regions_BRD)]
            writer.append(names, projection.apply(regions_BRD))
    return explained


def _check_project(store: RegionStore, folder: Path, size: int, photos: int) -> None:
    if store.manifest["projection"] is not None:
        raise LesaError(f"{store.folder} is projected already: project the store that it was made from")
    if (folder / "manifest.json").exists():
        if read_store_manifest(folder)["complete"]:
            raise LesaError(f"{folder} holds a finished store: give another folder, or delete it")
        for path in [folder / "names.txt", folder / "failed.jsonl", *folder.glob("shard*"), folder / "manifest.json"]:
            path.unlink(missing_ok=True)
    limit = min(store.size, photos * store.grid[0] * store.grid[1])
    if not 1 <= size <= limit:
        raise LesaError(f"cannot keep {size} components; expected 1 to {limit} for {store.size} features")


def _batches(
    store: RegionStore, rows: NDArray[np.int64], progress: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(rows), PHOTOS):
        yield store.read(rows[start : start + PHOTOS])
        progress(min(start + PHOTOS, len(rows)))


def fit_projection(batches: Iterator[NDArray[np.float32]], size: int) -> tuple[Projection, float]:
    """Fit the principal components of all regions of the batches; return them and the share of variance explained.

    Mean and covariance are summed in double precision, batch by batch. The components are the eigenvectors of the
    covariance. The sign of a component is arbitrary; it is chosen so that its largest coefficient is positive.

    Args:
        batches: regions, `B, R, D` each.
        size: number of components to keep.

    Raises:
        LesaError: all regions are equal.
    """
    covariance, mean_D = _covariance(batches)
    variances_D, vectors = np.linalg.eigh(covariance)
    components = vectors[:, ::-1][:, :size]
    largest = components[np.abs(components).argmax(axis=0), np.arange(size)]
    components = np.ascontiguousarray(components * np.sign(largest), dtype=np.float32)
    if not variances_D.sum() > 0:
        raise LesaError("every region has the same features: there is nothing to project; check the backbone's weights")
    explained = float(variances_D[::-1][:size].sum() / variances_D.sum())
    return Projection(mean_D.astype(np.float32), components), explained


def _covariance(batches: Iterator[NDArray[np.float32]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the covariance (D, D) and mean (D) of the regions in `B, R, D` batches."""
    count = 0
    for regions_BRD in batches:
        rows = regions_BRD.reshape(-1, regions_BRD.shape[2]).astype(np.float64)
        if not count:
            # A value near the mean is subtracted: products of large means would lose the digits of small variances.
            shift_D = rows.mean(axis=0)
            total_D, products = np.zeros_like(shift_D), np.zeros((len(shift_D), len(shift_D)))
        rows -= shift_D
        count += len(rows)
        total_D += rows.sum(axis=0)
        products += rows.T @ rows
    offset_D = total_D / count
    return products / count - np.outer(offset_D, offset_D), shift_D + offset_D


def read_projection(folder: Path | str) -> Projection | None:
    """Read the projection of a store; None if the store has the backbone's own features.

    Raises:
        LesaError: the folder is not a store, or the projection's file is missing or damaged.
    """
    folder = Path(folder)
    if read_store_manifest(folder)["projection"] is None:
        return None
    try:
        tensors = load_file(folder / FILE)
        return Projection(tensors["mean"], tensors["components"])
    except (OSError, KeyError, SafetensorError) as error:
        raise LesaError(f"{folder / FILE} cannot be read ({error}): project again") from None


def backbone_of(folder: Path | str) -> Backbone:
    """Return the backbone that a store was made with, with the store's preprocessing.

    Raises:
        LesaError: the folder is not a store, or its backbone cannot be loaded or has other weights now.
    """
    manifest = read_store_manifest(folder)
    source = manifest["backbone"]
    backbone = load_backbone(source["spec"], source["options"], Path(source["weights"]) if source["weights"] else None)
    if backbone.fingerprint() != source["fingerprint"]:
        raise LesaError(f"the weights of {source['spec']} are not those that {folder} was made with: extract again")
    return replace(backbone, preprocessing=Preprocessing.from_dict(manifest["preprocessing"]))


@dataclass(frozen=True)
class Extractor:
    """New photos -> regions, as a store was made: with its backbone, preprocessing and projection."""

    preprocessing: Preprocessing
    """How photos become pixels."""
    grid: tuple[int, int]
    """Rows and columns of the regions."""
    run: RunBackbone
    """The backbone: pixels -> regions."""
    projection: Projection | None
    """The projection of the regions; None if the store has the backbone's own features."""

    @classmethod
    def from_store(cls, folder: Path | str, device: str = "cpu") -> "Extractor":
        """Load backbone and projection of a store.

        Raises:
            LesaError: the folder is not a store, or its backbone cannot be loaded or has other weights now.
        """
        manifest, backbone = read_store_manifest(folder), backbone_of(folder)
        run = run_on(backbone, device)
        return cls(backbone.preprocessing, (manifest["grid"][0], manifest["grid"][1]), run, read_projection(folder))

    def regions(self, photos: Sequence[Path]) -> NDArray[np.float32]:
        """Return the regions of image files: float32 `B, R, D`.

        Raises:
            LesaError: a file is not a photo.
        """
        pixels = np.stack([to_pixels(open_photo(photo), self.preprocessing) for photo in photos])
        regions_BRD = self.run(pixels)
        return regions_BRD if self.projection is None else self.projection.apply(regions_BRD)
