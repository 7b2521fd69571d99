"""Prepared data sets: photo names, vocabulary and sparse targets of each split. One module per adapter.

An adapter is a function `prepare_NAME` that reads official files and returns a `Dataset`; the docstring of its module
has the rules. The data set's `source` says how it was made: `adapter`, and a list of `differences` from the official
counts. If photos can lie at several paths, a second function returns them for `match_photos`.
"""

from lesa.learn.datasets.dataset import Dataset, Split, Targets, counts, read_dataset, write_dataset

__all__ = ["Dataset", "Split", "Targets", "counts", "read_dataset", "write_dataset"]
