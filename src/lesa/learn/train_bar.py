"""Training with a progress bar on standard error."""

from pathlib import Path

from lesa.learn.recipe import Recipe
from lesa.learn.run import Run
from lesa.learn.train import Progress, train
from lesa.progress import progress_bar


def train_with_bar(recipe: Recipe, folder: Path, *, title: str = "train", device: str = "cpu") -> Run:
    """Train as `train` does, and show the steps, the loss and the last validation metric.

    Args:
        recipe: the recipe.
        folder: the folder of the run.
        title: the text before the bar.
        device: `cpu` or `cuda`.

    Raises:
        LesaError: as `train`.
    """
    with progress_bar(title, None) as advance:

        def show(now: Progress) -> None:
            metric = "" if now.metric is None else f" | validation {recipe.validation_metric} {now.metric:.2f}"
            advance(now.step, now.steps, f"loss {now.terms['total']:.3g}{metric}")

        return train(recipe, folder, device=device, progress=show)
