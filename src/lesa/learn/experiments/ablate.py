"""The ablation of a recipe: the same training with one thing changed at a time."""

from pathlib import Path
from typing import Any

from lesa.errors import LesaError
from lesa.learn.experiments.comparison import Comparison, Method
from lesa.learn.recipe import make_recipe, merge, read_toml

REFERENCE = "as it is"
# Name of a variation -> the keys of the recipe that it changes.
ATTENTIONS: dict[str, dict[str, Any]] = {f"M = {m}": {"model": {"attentions": m}} for m in (1, 2, 5, 10, 20)}
MODEL: dict[str, dict[str, Any]] = {
    "mean region": {"model": {"kind": "mean-pool"}},
    "with front": {"model": {"front": True}},
    "without front": {"model": {"front": False}},
    "separate W1": {"model": {"separate": True}},
    "unit codes": {"model": {"unit_codes": True}},
    "soft selection": {"model": {"selection": "log-mean-exp"}},
    "hard selection": {"model": {"selection": "max"}},
    "centred vectors": {"centred": True},
    "vectors not centred": {"centred": False},
}
LOSS: dict[str, dict[str, Any]] = {
    "without distribution loss": {"loss": {"distribution": 0.0}},
    "without relevance loss": {"loss": {"relevance": 0.0}},
    "without diversity loss": {"loss": {"diversity": 0.0}},
    "ranking loss alone": {"loss": {"distribution": 0.0, "relevance": 0.0, "diversity": 0.0}},
    "diversity of probabilities": {"loss": {"diversity_of": "probabilities"}},
}


def ablation(path: Path, seeds: tuple[int, ...], overrides: dict[str, Any]) -> Comparison:
    """Return the comparison of a recipe with its variations. Variations that change nothing are left out.

    Args:
        path: the recipe.
        seeds: the seeds of every variation.
        overrides: changes of the recipe in all variations.

    Raises:
        LesaError: the recipe makes no sense, or its model is not LESA.
    """
    base = read_toml(path)
    merge(base, overrides)
    base.pop("seed", None)
    recipe = make_recipe(base, where=str(path))
    if recipe.model.kind != "shared-attention":
        raise LesaError(f"{path}: an ablation needs a 'shared-attention' model, not {recipe.model.kind!r}")
    variations = ATTENTIONS | MODEL | (LOSS if recipe.loss.kind == "lesa" else {})
    methods = [Method(REFERENCE, base)]
    for name, changes in variations.items():
        settings: dict[str, Any] = {}
        merge(settings, base)
        merge(settings, changes)
        if make_recipe(settings) != recipe:
            methods.append(Method(name, settings))
    return Comparison(recipe.dataset, seeds, REFERENCE, tuple(methods))
