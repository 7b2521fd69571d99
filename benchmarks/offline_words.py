"""The share of names of a list that the default bundle knows offline: as a name, or composed of its words.

    python benchmarks/offline_words.py NAMES.txt ...      # one name per line

Prints one row per file (number of names, share of contained names, share of contained or composed names), and names
that are not known.
"""

import sys
from pathlib import Path

from lesa.errors import LesaError
from lesa.files import read_lines
from lesa.tagger import Tagger

SHOWN = 12


def known(tagger: Tagger, name: str) -> str:
    """Return `contained`, `composed` or `unknown`."""
    try:
        return "composed" if tagger.labels([name]).composed else "contained"
    except LesaError:
        return "unknown"


def main() -> None:
    """Count the names of each file."""
    tagger = Tagger("default")
    for path in map(Path, sys.argv[1:]):
        kind_of = {name: known(tagger, name) for name in dict.fromkeys(read_lines(path))}
        kinds = list(kind_of.values())
        contained, composed = kinds.count("contained") / len(kinds), kinds.count("composed") / len(kinds)
        print(f"| {path.stem} | {len(kinds):,} | {contained:.0%} | {contained + composed:.0%} |")
        unknown = [name for name, kind in kind_of.items() if kind == "unknown"]
        print("  unknown, such as:", ", ".join(unknown[:: max(1, len(unknown) // SHOWN)][:SHOWN]))


if __name__ == "__main__":
    main()
