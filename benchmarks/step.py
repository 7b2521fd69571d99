"""Time and memory of a training step, compared with the same floating-point work as plain matrix products.

    python benchmarks/step.py [--repeats 10] [--threads 2]

A step is forward, the published loss, backward and RMSpropTF: 32 photos with 14 x 14 regions of 512 features, ten
attentions, vectors of 300 numbers, with the front; 925 labels as in NUS-WIDE, and 7,186 as in Open Images. Ten labels
per photo are present, all others absent. The plain products are those of the front, W1, w2, the pooling, W and the
label vectors, forward and for every gradient of the step. Step and products run in turn in one process. The memory is
the growth of the largest resident set of a new process, from before the model and the batch are made to after three
steps.

Prints a Markdown table: median (least - most) of the repeats.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

# Only the measuring processes import PyTorch: a child process starts with its parent's largest resident set.

B, R, D, M, E = 32, 196, 512, 10, 300
CASES = {"NUS-WIDE": 925, "Open Images": 7186}
PRESENT = 10


def training_step(labels: int) -> Callable[[], None]:
    """Return a function that takes one step of a new model on one random batch."""
    import torch

    from lesa.learn.losses import lesa_loss
    from lesa.learn.methods import build_model
    from lesa.learn.model import ModelConfig
    from lesa.learn.optim import RMSpropTF

    torch.manual_seed(0)
    vectors_SE = torch.randn(labels, E)
    model = build_model(ModelConfig(region_size=D, vector_size=E, attentions=M), vectors_SE, seed=0).train()
    optimiser = RMSpropTF(model.parameters())
    regions_BRD = torch.rand(B, R, D)
    targets_BS = torch.full((B, labels), -1, dtype=torch.int8)
    targets_BS.scatter_(1, torch.rand(B, labels).topk(PRESENT).indices, 1)

    def step() -> None:
        optimiser.zero_grad()
        lesa_loss(model(regions_BRD, vectors_SE), targets_BS).total.backward()
        optimiser.step()

    return step


def shapes_of_products(labels: int) -> list[tuple[int, int, int, int, bool, bool]]:
    """Return the step's products: their number, rows, inner size, columns, and whether each factor needs a gradient."""
    return [
        (1, B * R, 4 * D, D, False, True),  # front: the 2 x 2 neighbourhoods of stored regions, and its kernel
        (1, B * R, D, D, True, True),  # W1
        (1, B * R, D, M, True, True),  # w2
        (B, M, R, D, True, True),  # attention pooling
        (1, B * M, D, E, True, True),  # W
        (1, B, D, E, True, True),  # W on the mean regions
        (1, B * M, E, labels, True, False),  # codes and label vectors, which are given
        (1, B, E, labels, True, False),  # the mean regions' codes and label vectors
    ]


def bare_products(labels: int) -> tuple[Callable[[], None], float]:
    """Return a function that computes the products, and their number of floating-point operations in units of 1e9."""
    import torch

    products = []
    for batch, rows, inner, columns, of_left, of_right in shapes_of_products(labels):
        left, right = torch.rand(batch, rows, inner), torch.rand(batch, inner, columns)
        gradient = torch.rand(batch, rows, columns)
        products.append((left, right))
        if of_left:
            products.append((gradient, right.mT))
        if of_right:
            products.append((left.mT, gradient))
    operations = sum(2 * left.numel() * right.shape[2] for left, right in products)

    def compute() -> None:
        for left, right in products:
            torch.matmul(left, right)

    return compute, operations / 1e9


def seconds(work: Callable[[], None]) -> float:
    """Return the time of the work in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_time(labels: int, repeats: int, threads: int | None) -> dict[str, Any]:
    """Time step and products in turn, after two rounds of each as a warm-up."""
    import torch

    torch.set_num_threads(threads or torch.get_num_threads())
    step = training_step(labels)
    products, work = bare_products(labels)
    times = [(seconds(step), seconds(products)) for _ in range(repeats + 2)][2:]
    steps, bare = zip(*times, strict=True)
    setting = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    return {"steps": steps, "bare": bare, "work": work, "setting": setting}


def measure_memory(labels: int, threads: int | None) -> float:
    """Return the growth of the largest resident set, in 1e6 bytes, while the model is made and takes three steps."""
    import torch

    import lesa.learn.losses
    import lesa.learn.optim  # noqa: F401 - both imported before the first reading

    torch.set_num_threads(threads or torch.get_num_threads())
    before = largest_resident_set()
    step = training_step(labels)
    for _ in range(3):
        step()
    return (largest_resident_set() - before) / 1e6


def largest_resident_set() -> int:
    """Return this process's peak memory in bytes; Linux counts it in KiB, macOS in bytes."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_a_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function in a new interpreter and return its result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def spread(times: tuple[float, ...]) -> str:
    """Write times in milliseconds as median (least - most)."""
    middle, least, most = (1e3 * f(times) for f in (statistics.median, min, max))
    return f"{middle:.0f} ({least:.0f} - {most:.0f})"


def row(name: str, labels: int, repeats: int, threads: int | None) -> tuple[str, str]:
    """Measure one case; return its row of the table, and the setting of the measurement."""
    timed = in_a_fresh_process(measure_time, labels, repeats, threads)
    memory = in_a_fresh_process(measure_memory, labels, threads)
    ratio = statistics.median(timed["steps"]) / statistics.median(timed["bare"])
    cells = [f"{name}, {labels:,} labels", spread(timed["steps"]), spread(timed["bare"])]
    cells += [f"{ratio:.2f}", f"{timed['work']:.1f}", f"{memory:.0f}"]
    return f"| {' | '.join(cells)} |", timed["setting"]


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="timed rounds of step and products (default 10)")
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    options = parser.parse_args()
    rows = [row(name, labels, options.repeats, options.threads) for name, labels in CASES.items()]
    print("| case | step, ms | bare products, ms | ratio | GFLOP | peak memory growth, MB |")
    print("|---|---|---|---|---|---|")
    print("\n".join(line for line, _ in rows))
    print(f"\n{rows[0][1]}, {options.repeats} repeats, batch {B}, {R} x {D} regions, M = {M}, E = {E}, front on")


if __name__ == "__main__":
    main()
