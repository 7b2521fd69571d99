"""The cost of tagging: size of the installation, cold start, and photos per second compared with the graph alone.

    python -m venv /tmp/fresh && /tmp/fresh/bin/pip install . && /tmp/fresh/bin/python benchmarks/tagging.py PHOTOS

It needs only the installed package. The cold start is `lesa tag` on one photo in a new process; `lesa --help` is
measured as well. The graph alone runs on decoded pixels, in turn with all steps from file to tags.
"""

import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lesa.graph import open_graph
from lesa.images import list_photos, open_photo, to_pixels
from lesa.tagger import Tagger

ROUNDS, BATCH, STARTS = 5, 8, 7


def seconds(work: Callable[[], object]) -> float:
    """Return the time of a call in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def installed() -> float:
    """Return the size of the packages in this environment, in MB, without pip."""
    folder = Path(sysconfig.get_paths()["purelib"])
    files = (path for path in folder.rglob("*") if path.is_file())
    return (
        sum(path.stat().st_size for path in files if path.relative_to(folder).parts[0][:4] not in ("pip", "pip-")) / 1e6
    )


def main() -> None:
    """Measure on the photos of a folder."""
    folder = Path(sys.argv[1])
    photos = [folder / name for name in list_photos(folder)]
    print(f"installed: {installed():.0f} MB, PyTorch: {'installed' if find_spec('torch') else 'not installed'}")
    program = str(Path(sys.executable).with_name("lesa"))
    for command in ([program, "--help"], [program, "tag", str(photos[0])]):
        start = partial(subprocess.run, command, capture_output=True, check=True)
        times = [seconds(start) for _ in range(STARTS)]
        print(
            f"{' '.join(command[1:2])}: median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
        )
    tagger = Tagger("default")
    labels = tagger.labels()
    graph = open_graph(tagger.bundle)
    pixels = np.stack([to_pixels(open_photo(photo), tagger.bundle.manifest.preprocessing) for photo in photos])

    def bare() -> None:
        for start in range(0, len(pixels), BATCH):
            graph(pixels[start : start + BATCH])

    def whole() -> None:
        for _, codes in tagger.stream(photos):
            tagger.rank(codes, labels)

    bare(), whole()
    pairs = [(seconds(bare), seconds(whole)) for _ in range(ROUNDS)]
    ratios = sorted(whole_s / bare_s for bare_s, whole_s in pairs)
    rates = [len(photos) / statistics.median(times) for times in zip(*pairs, strict=True)]
    print(f"{len(photos)} photos: graph {rates[0]:.0f} per second, from file to tags {rates[1]:.0f} per second")
    print(f"time compared with the graph alone: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
