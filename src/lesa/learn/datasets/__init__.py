"""A prepared data set: photo names, a vocabulary and sparse targets for each split; one adapter a module beside it."""

from lesa.learn.datasets.dataset import Dataset, Split, Targets, counts, read_dataset, write_dataset

__all__ = ["Dataset", "Split", "Targets", "counts", "read_dataset", "write_dataset"]
