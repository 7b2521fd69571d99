"""What the commands print: tables."""

from collections.abc import Sequence
from typing import Any


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(escape(name), justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    # Metrics are never cut to the width of a terminal.
    needed = Console(width=10_000).measure(table).maximum
    console = Console()
    console.width = max(console.width, needed)
    console.print(table, soft_wrap=True)


def print_reports(title: str, first: str, reports: dict[str, Any]) -> None:
    """Print one row per report: labels, images, fingerprint, P, R, F1 at each K, the means of average precision."""
    metrics = {name: report.metrics() for name, report in reports.items()}
    names = max(metrics.values(), key=len)
    rows = []
    for name, report in reports.items():
        row = [name, str(report.labels), str(report.images), f"{report.positives_per_image:.3f}"]
        cells = [f"{metrics[name][each]:.2f}" if each in metrics[name] else "-" for each in names]
        rows.append((*row, *cells))
    print_table(title, [first, "labels", "images", "positives/image", *names], rows)
