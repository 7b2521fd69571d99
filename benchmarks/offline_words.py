"""How many names of a list the default bundle knows offline: carried, composed of carried words, or not at all.

    python benchmarks/offline_words.py NAMES.txt ...      # one name per line

Prints one row per file, and names that are not known.
"""

import sys
from pathlib import Path

from lesa.errors import LesaError
from lesa.files import read_lines
from lesa.tagger import Tagger

SHOWN = 12


def known(tagger: Tagger, name: str) -> str:
    """Return `carried`, `composed` or `unknown`."""
    try:
        return "composed" if tagger.labels([name]).composed else "carried"
    except LesaError:
        return "unknown"


def main() -> None:
    """Count the names of each file."""
    tagger = Tagger("default")
    for path in map(Path, sys.argv[1:]):
        found = {name: known(tagger, name) for name in dict.fromkeys(read_lines(path))}
        kinds = list(found.values())
        carried, composed = kinds.count("carried") / len(kinds), kinds.count("composed") / len(kinds)
        print(f"| {path.stem} | {len(kinds):,} | {carried:.0%} | {carried + composed:.0%} |")
        unknown = [name for name, kind in found.items() if kind == "unknown"]
        print("  unknown, such as:", ", ".join(unknown[:: max(1, len(unknown) // SHOWN)][:SHOWN]))


if __name__ == "__main__":
    main()
