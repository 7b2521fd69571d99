"""A prepared data set: photo names, vocabulary and sparse targets for each split; one module per adapter."""

from lesa.learn.datasets.dataset import Dataset, Split, Targets, counts, read_dataset, write_dataset

__all__ = ["Dataset", "Split", "Targets", "counts", "read_dataset", "write_dataset"]
