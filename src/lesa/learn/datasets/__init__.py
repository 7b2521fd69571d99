"""Prepared data sets: photo names, vocabulary and sparse targets of each split. One module per adapter."""

from lesa.learn.datasets.dataset import Dataset, Split, Targets, counts, read_dataset, write_dataset

__all__ = ["Dataset", "Split", "Targets", "counts", "read_dataset", "write_dataset"]
