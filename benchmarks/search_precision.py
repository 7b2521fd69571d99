"""Precision at 10 of `lesa search` on photos with captions, compared with chance.

    lesa index Images --bundle flickr8k.lesa -o flickr8k.index
    python benchmarks/search_precision.py flickr8k.index Flickr8k.token.txt

A photo is right if at least two of its captions mention the word in singular or plural; for a phrase, if two captions
mention each of its words. Chance is the share of photos that are right. Training photos are found more easily, so there
are columns for all photos and for the test photos of the benchmark's split.

The queries were chosen from the captions, before any search. The words are the twenty concepts of NUS-WIDE's 81 that
most photos show. The phrases are the ten pairs of neighbouring words, without function words and verbs, that at least
two captions mention for the most photos. In the benchmark the twenty words are unseen labels; a star marks queries that
the bundle was trained on.

Prints a Markdown table, in percent.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lesa.errors import LesaError
from lesa.index.files import read_index_manifest
from lesa.index.search import Index
from lesa.labels import other_forms
from lesa.learn.datasets.captions import AGREEING_CAPTIONS, Captions, read_captions
from lesa.learn.datasets.dataset import split_of
from lesa.tagger import Tagger

WORDS = (
    *("dog", "water", "running", "grass", "snow", "person", "beach", "street", "rocks", "mountain"),
    *("toy", "tree", "soccer", "buildings", "sand", "ocean", "cars", "boats", "road", "lake"),
)
PHRASES = (
    *("white dog", "brown dog", "black dog", "little girl", "young boy"),
    *("young girl", "little boy", "tennis ball", "soccer ball", "blue shirt"),
)
TOP = 10


def main() -> None:
    """Search for each query and print how many of the best photos are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="an index, made with `lesa index`")
    parser.add_argument("captions", type=Path, help="one line `photo#number<TAB>caption` per caption")
    parser.add_argument("--bundle", type=Path, help="the index's bundle, if it has moved")
    arguments = parser.parse_args()
    tagger = Tagger(arguments.bundle or read_index_manifest(arguments.index)["bundle"])
    index, captions = Index(arguments.index, tagger), read_captions(arguments.captions)
    for title, queries in (("word", WORDS), ("phrase", PHRASES)):
        print(f"| {title} | P@10, all photos | chance | P@10, test photos | chance |\n|---|---|---|---|---|")
        try:
            print_rows(index, tagger, captions, queries)
        except LesaError as error:
            print(f"\nNot measured: {error}")
        print()


def print_rows(index: Index, tagger: Tagger, captions: dict[str, Captions], queries: Sequence[str]) -> None:
    """Print one line per query, and their mean."""
    rows = []
    for query in queries:
        right = [(is_right(captions[hit.photo], query), hit.photo) for hit in index.find(query, top=len(index))]
        all_N = [each for each, _ in right]
        test_N = [each for each, photo in right if split_of(photo) == "test"]
        row = [metric for right_N in (all_N, test_N) for metric in (np.mean(right_N[:TOP]), np.mean(right_N))]
        rows.append(row)
        star = "*" if tagger.labels([query]).seen[0] else ""
        print(line(query + star, row))
    print(line("**mean**", np.mean(rows, axis=0).tolist()))


def is_right(captions: Captions, query: str) -> bool:
    """Whether at least two captions mention each word of the query, in singular or plural."""
    forms = [other_forms(word) | {word} for word in query.split()]
    mention = [all(not each.isdisjoint(words) for each in forms) for words in captions.values()]
    return sum(mention) >= AGREEING_CAPTIONS


def line(name: str, metrics: Sequence[float]) -> str:
    """Return a row of the table: precision and chance of all photos, then of the test photos."""
    precision, chance, test_precision, test_chance = (100 * metric for metric in metrics)
    return f"| {name} | {precision:.0f} | {chance:.1f} | {test_precision:.0f} | {test_chance:.1f} |"


if __name__ == "__main__":
    main()
