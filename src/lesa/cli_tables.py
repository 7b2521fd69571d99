"""What the commands print: tables."""

from collections.abc import Sequence


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
    # Figures are never cut to the width of a terminal.
    needed = Console(width=10_000).measure(table).maximum
    console = Console()
    console.width = max(console.width, needed)
    console.print(table, soft_wrap=True)
