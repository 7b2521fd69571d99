"""Compare `lesa score` with a loop over scikit-learn's average precision, at NUS-WIDE's size: time, memory, equality.

    python benchmarks/score.py [--images 107859] [--labels 1006] [--folder DIR]

Scores are random (normal, single precision, some tied), and targets are +1, -1 and 0 (0.7 % present, 5 % not
annotated). Each program runs in a new process that maps the same two files. Ours is `lesa.evaluate` with all its
metrics; the other one is `sklearn.metrics.average_precision_score`, label by label (only the mean average precision).
Then both run in turn in one process, and the 1,006 average precisions are compared. Memory is the largest resident set
of a process, with the mapped files.

Prints a Markdown table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def make_files(folder: Path, images: int, labels: int) -> None:
    """Write scores.npy and targets.npy, block by block."""
    rng = np.random.default_rng(0)
    shape = images, labels
    scores_NC = np.lib.format.open_memmap(folder / "scores.npy", "w+", np.float32, shape)
    targets_NC = np.lib.format.open_memmap(folder / "targets.npy", "w+", np.int8, shape)
    for start in range(0, images, 4096):
        rows = slice(start, start + 4096)
        draw_NC = rng.random((len(scores_NC[rows]), labels), dtype=np.float32)
        targets_NC[rows] = np.where(draw_NC < 0.007, 1, np.where(draw_NC < 0.057, 0, -1))
        noise_NC = rng.standard_normal(draw_NC.shape, dtype=np.float32)
        # Three decimals: many images share a score.
        scores_NC[rows] = np.round(noise_NC + (targets_NC[rows] > 0), 3)
    scores_NC.flush()
    targets_NC.flush()


def read(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Map the two files."""
    return np.load(folder / "scores.npy", mmap_mode="r"), np.load(folder / "targets.npy", mmap_mode="r")


def by_lesa(folder: Path) -> list[float | None]:
    """Return each label's average precision by `lesa`, in percent."""
    from lesa.evaluation.report import evaluate

    return list(evaluate(*read(folder), "lesa", k=(3, 5)).average_precision_C)


def by_scikit_learn(folder: Path) -> list[float | None]:
    """Return each label's average precision by the usual loop over scikit-learn, in percent."""
    from sklearn.metrics import average_precision_score

    scores_NC, targets_NC = read(folder)
    precisions: list[float | None] = []
    for c in range(scores_NC.shape[1]):
        targets_N, scores_N = np.asarray(targets_NC[:, c]), np.asarray(scores_NC[:, c])
        used_N = targets_N != 0
        precisions.append(100 * float(average_precision_score(targets_N[used_N] > 0, scores_N[used_N])))
    return precisions


WAYS = {"lesa": by_lesa, "scikit-learn": by_scikit_learn}


def measure(way: str, folder: Path) -> None:
    """Run one program in this process; print its seconds and the largest resident set."""
    start = time.perf_counter()
    WAYS[way](folder)
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))


def compare(folder: Path) -> None:
    """Run both programs, each in a new process and then in turn in this one; print the table."""
    rows = []
    for way in WAYS:
        command = [sys.executable, __file__, "--measure", way, "--folder", str(folder)]
        seconds, memory = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rows.append(f"| {way} | {seconds:.1f} s | {memory / 1e6:.0f} MB |")
    turns = []
    for way in WAYS.values():
        start = time.perf_counter()
        precisions = np.array(way(folder))
        turns.append((time.perf_counter() - start, precisions))
    (ours, ours_C), (theirs, theirs_C) = turns
    print("| fresh process | time | memory |\n|---|---|---|\n" + "\n".join(rows))
    print(f"\nIn one process: {ours:.1f} s and {theirs:.1f} s, a ratio of {theirs / ours:.1f};")
    print(f"largest difference of an average precision: {np.abs(ours_C - theirs_C).max() / 100:.1e} (as a fraction)")


def main() -> None:
    """Make the files and compare, or measure one program in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=107_859)
    parser.add_argument("--labels", type=int, default=1_006)
    parser.add_argument("--folder", type=Path, help="folder of the files; a temporary folder if not given")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.folder)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make_files(Path(folder), arguments.images, arguments.labels)
        compare(Path(folder))


if __name__ == "__main__":
    main()
