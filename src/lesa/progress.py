"""The progress bar of long work: items done, rate, time left. Without a terminal it only prints its last state."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(task: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar on standard error and yield `advance(done, total=None, text="")`, which updates it.

    Args:
        task: the name of the work, one word.
        total: number of items, if it is known from the start.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate()]
    columns += [TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}")]
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=10) as shown:
        running = shown.add_task(task, total=total, text="")

        def advance(done: int, total: int | None = None, text: str = "") -> None:
            shown.update(running, completed=done, total=total, text=text)

        yield advance
