"""The configuration of a comparison: methods with their settings and grids, read from a TOML file."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesa.errors import LesaError, did_you_mean
from lesa.learn.recipe import Recipe, make_recipe, merge, parse_override, read_toml

TRIALS, SUPERVISED = "trials", "supervised"
"""Folders of the changed data sets."""
PLACES = ("dataset", "regions", "vectors")
OWN_KEYS = ("grid", "supervised")


@dataclass(frozen=True)
class Method:
    """One method: one row of the tables."""

    name: str
    settings: dict[str, Any]
    """Its recipe as nested settings, without the seed."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Key -> values to try; every combination is trained once."""
    supervised: bool = False
    """Whether it learns all labels from the training photos, also the unseen ones: an upper bound."""

    def trials(self) -> list[dict[str, Any]]:
        """Return the combinations of the grid as `key: value`; a single empty one if there is no grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def recipe(self, setting: Mapping[str, Any], seed: int) -> Recipe:
        """Return its recipe with one combination of the grid and a seed.

        Raises:
            LesaError: the recipe makes no sense.
        """
        settings: dict[str, Any] = {}
        merge(settings, self.settings)
        for key, value in {**setting, "seed": seed}.items():
            merge(settings, parse_override(f"{key}={json.dumps(value)}"))
        return make_recipe(settings, where=f"method {self.name!r}")


@dataclass(frozen=True)
class Comparison:
    """Methods, seeds, and the data set on which the methods are compared."""

    dataset: str
    seeds: tuple[int, ...]
    reference: str
    """The method with which the others are compared, on the same photos."""
    methods: tuple[Method, ...]


def read_comparison(path: Path, seeds: Sequence[int] = (), overrides: Sequence[str] = ()) -> Comparison:
    """Read a comparison: `dataset`, `regions`, `vectors`, `seeds`, `reference`, one table `methods.NAME` per method.

    A method's table is a recipe, such as `recipe = "eszsl"` and changes of it. Its `grid` gives lists of values to try.
    `supervised = true` lets it learn all labels.

    Raises:
        LesaError: the file is missing, is not TOML, lacks a key, has an unknown key, or a recipe makes no sense.
    """
    settings = read_toml(path)
    for override in overrides:
        merge(settings, parse_override(override))
    known = {*PLACES, "seeds", "reference", "methods"}
    for key in settings:
        if key not in known:
            raise LesaError(f"{path}: there is no key {key!r}; {did_you_mean(key, known)}")
    for key in (*PLACES, "methods", "reference"):
        if key not in settings:
            raise LesaError(f"{path}: `{key}` is missing: add it")
    if not isinstance(settings["methods"], dict) or not all(isinstance(m, dict) for m in settings["methods"].values()):
        raise LesaError(f"{path}: each method is a table, such as [methods.ESZSL]")
    places = {key: settings[key] for key in PLACES}
    chosen_seeds = list(seeds or settings.get("seeds", (0, 1, 2)))
    if not chosen_seeds or len(set(chosen_seeds)) < len(chosen_seeds) or not all(_is_seed(s) for s in chosen_seeds):
        raise LesaError(f"{path}: `seeds` is {chosen_seeds}; expected different whole numbers from 0")
    methods = tuple(_read_method(name, table, places, path) for name, table in settings["methods"].items())
    names = [method.name for method in methods]
    if settings["reference"] not in names:
        raise LesaError(
            f"{path}: no method is called {settings['reference']!r}; {did_you_mean(settings['reference'], names)}"
        )
    return Comparison(str(places["dataset"]), tuple(chosen_seeds), settings["reference"], methods)


def _read_method(name: str, table: dict[str, Any], places: dict[str, Any], path: Path) -> Method:
    """Read one method and check that all its recipes make sense.

    Raises:
        LesaError: the name cannot be a folder name, or a recipe makes no sense.
    """
    if not re.fullmatch(r"[\w(][\w ()+.,=-]*", name):
        raise LesaError(f"{path}: method {name!r}: its folder has its name; use letters, digits, blanks and ()+.,=-")
    if name in (TRIALS, SUPERVISED):
        raise LesaError(f"{path}: no method can be called {name!r}: a folder of the comparison has this name")
    grid, supervised = table.get("grid", {}), table.get("supervised", False)
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise LesaError(
            f'{path}: method {name!r}: `grid` gives a list for each key, such as {{"model.ridge" = [1.0, 10.0]}}'
        )
    for key in ("dataset", "seed"):
        if key in table or key in grid:
            raise LesaError(f"{path}: method {name!r}: `{key}` is the comparison's: all methods share it")
    if supervised not in (True, False) or (supervised and grid):
        raise LesaError(f"{path}: method {name!r}: `supervised` is true or false, and such a method has no grid")
    settings = {**places, **{key: value for key, value in table.items() if key not in OWN_KEYS}}
    method = Method(name, settings, grid, supervised)
    for trial in method.trials():
        method.recipe(trial, seed=0)
    return method


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
