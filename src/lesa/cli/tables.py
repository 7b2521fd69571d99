"""Tables on the screen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lesa.evaluation.report import Report


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
    # A terminal that is too narrow must not cut numbers.
    needed = Console(width=10_000).measure(table).maximum
    console = Console()
    console.width = max(console.width, needed)
    console.print(table, soft_wrap=True)


def print_reports(title: str, first: str, reports: "Mapping[str, Report]") -> None:
    """Print one row per report: its test set and its metrics. `first` is the header of the column of their names."""
    from lesa.evaluation.tables import report_table

    print_table(title, *report_table(first, reports))
