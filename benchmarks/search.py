"""Compare queries with the vector index (extra `ann`) and with the exact scan: time, recall of the ten best photos.

    python benchmarks/search.py flickr8k.index [--photos 200000] [--queries 40]

The codes come from a real index. If --photos exceeds its size, artificial photos are added: each of their codes is a
random mixture of the same code of two real photos, with noise of a fifth of its length. So artificial photos are
between real ones; more real photos may be distributed differently.

Queries are the first labels of the bundle, and the same number of photos of the index that still exist (`like`). Both
searches answer each query in turn in one process, after one query each as a warm-up. Recall is the share of the exact
scan's ten best photos that the vector index also finds. Its scores are the same, because it ranks by the same codes.

Prints a Markdown table: median (least - most) over the queries.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from lesa.index.files import (
    Records,
    added_line,
    drop_uncommitted,
    files_of,
    open_records,
    read_index_manifest,
    write_index_manifest,
)
from lesa.index.search import Hit, Index
from lesa.index.update import update_neighbours
from lesa.tagger import Tagger

T = TypeVar("T")
AT_ONCE = 2048
JITTER = 0.2
TOP = 10


def make_index(real: Path, made: Path, photos: int, tagger: Tagger) -> None:
    """Write an index of real and artificial photos, `photos` in total, into an empty folder."""
    manifest = read_index_manifest(real)
    records = open_records(real, manifest, tagger.bundle.manifest)
    codes, journal = files_of(made, manifest)
    for file in files_of(real, manifest):
        shutil.copy(file, made)
    # Without bytes that were not committed, which the counts do not include.
    drop_uncommitted(made, manifest)
    random, rows = np.random.default_rng(0), len(records)
    with codes.open("ab") as codes_file, journal.open("a") as journal_file:
        while rows < photos:
            block = mixed(records, min(AT_ONCE, photos - rows), random)
            codes_file.write(block.tobytes())
            for row in range(rows, rows + len(block)):
                journal_file.write(json.dumps(added_line(f"made/{row:08d}.jpg", (row, row), (224, 224))) + "\n")
            rows += len(block)
    write_index_manifest(made, manifest | {"rows": rows, "journal": journal.stat().st_size})


def mixed(records: Records, photos: int, random: np.random.Generator) -> Records:
    """Return artificial photos: codes between those of two real photos, with noise, as long as the first codes."""
    one, other = records[random.integers(len(records), size=(2, photos))]
    one_BME, other_BME = (each["codes"] * each["scales"][:, :, None] for each in (one, other))
    share_B11 = random.random((photos, 1, 1), dtype=np.float32)
    codes_BME = share_B11 * one_BME + (1 - share_B11) * other_BME
    length_BM1 = np.linalg.norm(codes_BME, axis=2, keepdims=True)
    noise_BME = random.standard_normal(codes_BME.shape, dtype=np.float32) / np.sqrt(codes_BME.shape[2])
    codes_BME += JITTER * length_BM1 * noise_BME
    codes_BME *= np.linalg.norm(one_BME, axis=2, keepdims=True) / np.linalg.norm(codes_BME, axis=2, keepdims=True)
    block = one.copy()
    block["scales"] = np.abs(codes_BME).max(axis=2) / 127
    block["codes"] = np.rint(codes_BME / block["scales"][:, :, None])
    return block


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the time of the work in seconds, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(exact: Callable[[str], list[Hit]], near: Callable[[str], list[Hit]], queries: list[str]) -> list[str]:
    """Return cells of the table: time of the exact scan and of the vector index, their ratio, recall."""
    exact(queries[0]), near(queries[0])
    turns = [(timed(lambda q=query: exact(q)), timed(lambda q=query: near(q))) for query in queries]
    slow, quick = [a[0] for a, _ in turns], [b[0] for _, b in turns]
    recalls = [len({h.photo for h in a[1]} & {h.photo for h in b[1]}) / TOP for a, b in turns]
    ratios = [a / b for a, b in zip(slow, quick, strict=True)]
    milliseconds = [spread([1e3 * s for s in each], ".0f") + " ms" for each in (slow, quick)]
    return [*milliseconds, spread(ratios, ".1f"), f"{statistics.mean(recalls):.3f} (least {min(recalls):.1f})"]


def spaced(photos: list[str], most: int) -> list[str]:
    """Return at most `most` photos, evenly spaced."""
    return photos[:: max(1, len(photos) // most)][:most]


def spread(values: list[float], form: str) -> str:
    """Return the median, the least and the greatest value."""
    median, least, most = (format(each, form) for each in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least} - {most})"


def main() -> None:
    """Make the index, build its vector index and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="an index of real photos, made with `lesa index`")
    parser.add_argument("--photos", type=int, default=0, help="number of all photos, with the artificial ones")
    parser.add_argument("--queries", type=int, default=40)
    arguments = parser.parse_args()
    tagger = Tagger(read_index_manifest(arguments.index)["bundle"])
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        make_index(arguments.index, made, arguments.photos, tagger)
        building, _ = timed(lambda: update_neighbours(made, tagger))
        opening, exact = timed(lambda: Index(made, tagger, exact=True))
        near = Index(made, tagger)
        sizes = {file.suffix: file.stat().st_size / len(near) for file in made.iterdir()}
        manifest = tagger.bundle.manifest
        print(
            f"{len(near):,} photos x {manifest.attentions} codes x {manifest.code_size} numbers; bytes per photo:",
            end=" ",
        )
        print(", ".join(f"{suffix} {size:,.0f}" for suffix, size in sizes.items()))
        print(f"vector index built in {building:.0f} s; index opened in {opening:.1f} s\n")
        print("| query | exact scan | vector index | ratio | recall at 10 |\n|---|---|---|---|---|")
        words = list(manifest.names[: arguments.queries])
        cells = compare(lambda q: exact.find(q, TOP), lambda q: near.find(q, TOP), words)
        print(f"| by words | {' | '.join(cells)} |")
        photos = [str(near.folder / hit.photo) for hit in exact.find(words[0], len(exact))]
        photos = spaced([photo for photo in photos if Path(photo).exists()], arguments.queries)
        if not photos:
            sys.exit(f"\nNo query by a photo: no photo of {arguments.index} is in {near.folder} any more")
        for photo in photos:
            tagger.codes(photo)
        cells = compare(lambda q: exact.like(q, TOP), lambda q: near.like(q, TOP), photos)
        print(f"| by a photo | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
