"""A recipe: all settings of a training run, from TOML and overrides of the command line; a run keeps it as JSON."""

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lesa.errors import LesaError, did_you_mean
from lesa.learn.losses import CLOSED_FORM, LossConfig
from lesa.learn.methods import complete_settings
from lesa.learn.model import ModelConfig
from lesa.learn.optim import OptimiserConfig
from lesa.learn.settings import parse_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Recipe:
    """One training run: data, label vectors, model, loss, optimiser. The defaults are the published recipe."""

    dataset: str
    """Folder of a prepared data set (`lesa prepare`)."""
    regions: str
    """Folder of its region features (`lesa extract`, `lesa project`)."""
    vectors: tuple[str, ...]
    """Sources of the label vectors; several are joined end to end."""
    centred: bool = False
    """Whether the mean of the seen labels' vectors is subtracted from every label vector."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model; its region and vector sizes follow from the data."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """The optimiser and its learning rate."""
    batch_size: int = 32
    """Photos per step."""
    epochs: int | None = None
    """Length of the training in passes over the photos; either this or `steps`."""
    steps: int | None = None
    """Length of the training in steps; either this or `epochs`."""
    validate_every: int | None = None
    """Steps between two validations and checkpoints; one epoch if not given."""
    validation_metric: Literal["F1@5", "mAP"] = "F1@5"
    """The metric of the seen labels on validation photos: it changes the learning rate and decides the best weights."""
    checkpoint: Literal["last", "best"] = "last"
    """The weights that evaluation and export take: those of the last step, or the best on validation."""
    skip_unlabelled: bool = False
    """Whether training photos without a present seen label are left out."""
    seed: int = 0
    """The first weights and the order of the photos depend on it."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise LesaError("give the length of the training either as `epochs` or as `steps`")
        for name in ("epochs", "steps", "batch_size", "validate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LesaError(f"{name} is {value}; expected at least 1")
        if self.seed < 0:
            raise LesaError(f"seed is {self.seed}; expected at least 0")
        if self.loss.is_closed_form and self.epochs not in (None, 1):
            raise LesaError("a closed form reads every photo once: give `epochs = 1`")
        if not self.vectors:
            raise LesaError("`vectors` names no source of label vectors")


def _compared(model: dict[str, Any], loss: str, **optimiser: Any) -> dict[str, Any]:
    """Return the recipe of a compared method that is trained by steps: AdamW, the best weights on validation."""
    return {
        "epochs": 8,
        "batch_size": 64,
        "model": {"front": False, **model},
        "loss": {"kind": loss},
        "optimiser": {"kind": "adamw", "weight_decay": 0.01, "adaptive": False, **optimiser},
        "checkpoint": "best",
    }


def _closed_form(model: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe of a compared method with a closed form."""
    optimiser = {"kind": "adamw", "adaptive": False}
    return {"epochs": 1, "model": {"front": False, **model}, "loss": {"kind": CLOSED_FORM}, "optimiser": optimiser}


# The changes of each named recipe to the defaults above.
RECIPES: dict[str, dict[str, Any]] = {
    "published": {"epochs": 40},
    "contrastive": {
        "epochs": 8,
        "batch_size": 64,
        "centred": True,
        "model": {"front": False, "unit_codes": True, "selection": "log-mean-exp"},
        "loss": {"kind": "contrastive"},
        "optimiser": {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01, "adaptive": False},
        "checkpoint": "best",
    },
    "labelem": _compared({"kind": "mean-pool"}, "ranking"),
    "conse": _compared({"kind": "conse"}, "logistic", learning_rate=3e-3),
    "fast0tag": _compared({"kind": "fast0tag"}, "ranknet", weight_decay=0.1),
    "fast0tag-linear": _closed_form({"kind": "fast0tag-linear", "settings": {"ridge": 1e3, "label_ridge": 0.01}}),
    "eszsl": _closed_form({"kind": "eszsl", "settings": {"ridge": 1e3, "label_ridge": 1.0}}),
    "synthesised": _closed_form({"kind": "synthesised"}),
    "best": {
        "epochs": 8,
        "batch_size": 64,
        "model": {
            "kind": "combined",
            "front": False,
            "unit_codes": True,
            "selection": "log-mean-exp",
            "settings": {"prior": 1.0},
        },
        "loss": {"kind": "contrastive"},
        "optimiser": {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01, "adaptive": False},
        "checkpoint": "best",
    },
    "training-free": _closed_form({"kind": "training-free"}),
    "logistic": _compared({"kind": "logistic"}, "logistic", learning_rate=3e-3),
    "warp": _compared({"kind": "logistic"}, "warp", weight_decay=1.0),
    "wsabie": _compared({"kind": "wsabie"}, "warp", learning_rate=3e-4, weight_decay=0.1),
    "attention-per-label": _compared({"kind": "attention-per-label", "front": True}, "ranking"),
    "attention-per-cluster": _compared({"kind": "attention-per-cluster", "front": True}, "ranking"),
    "biam": _compared({"kind": "biam", "settings": {"hidden": 64}}, "ranking"),
    "sdl": _compared({"kind": "sdl", "attentions": 7}, "sdl", learning_rate=3e-3),
    "nus-wide": {"steps": 200_000, "validate_every": 4_000},
    # The paper validates Open Images on mAP with patience 2. It does not say how often: here about twenty times.
    "open-images": {
        "epochs": 2,
        "validate_every": 16_000,
        "validation_metric": "mAP",
        "optimiser": {"patience": 2},
        "skip_unlabelled": True,
    },
}


def read_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a TOML recipe; its key `recipe` names the recipe that it changes. `overrides` are `key=value`, as in TOML.

    Example:
        `read_recipe("configs/flickr8k.toml", ["model.attentions=1", "seed=2"])`

    Raises:
        LesaError: the file does not exist or is not TOML, a key does not exist, or a value is of the wrong kind.
    """
    settings = read_toml(path)
    for override in overrides or []:
        merge(settings, parse_override(override))
    return make_recipe(settings, where=str(path))


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        LesaError: the file does not exist or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LesaError(f"recipe {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LesaError(f"recipe {path} is not valid TOML: {error}") from None


def make_recipe(settings: dict[str, Any], where: str = "the recipe") -> Recipe:
    """Build a recipe from nested settings, on top of the named recipe in `settings["recipe"]` (published if absent)."""
    name = settings.get("recipe", "published")
    if name not in RECIPES:
        raise LesaError(f"{where}: no recipe is called {name!r}; {did_you_mean(str(name), RECIPES)}")
    whole: dict[str, Any] = {}
    merge(whole, RECIPES[name])
    for one, other in ("steps", "epochs"), ("epochs", "steps"):
        if one in settings and other not in settings:
            whole.pop(other, None)
    merge(whole, {key: value for key, value in settings.items() if key != "recipe"})
    return parse_recipe(whole, where)


def parse_recipe(settings: dict[str, Any], where: str) -> Recipe:
    """Turn complete nested settings (of a TOML or JSON file) into a checked recipe.

    Raises:
        LesaError: a key does not exist, is missing, or its value is of the wrong kind.
    """
    recipe = parse_settings(Recipe, settings, where)
    return replace(recipe, model=complete_settings(recipe.model, where))


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as nested settings that `parse_recipe` reads back."""
    return asdict(recipe)


def parse_override(text: str) -> dict[str, Any]:
    """Parse `a.b=value` into `{"a": {"b": value}}`; a value that is not TOML is a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise LesaError(f"{text!r} is not an override; expected KEY=VALUE, such as model.attentions=1")
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        settings: Any = value.strip()
        for part in reversed(key.strip().split(".")):
            settings = {part: settings}
        return dict(settings)


def merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """Write `changes` over `settings`, table by table, in place."""
    for key, value in changes.items():
        if isinstance(value, dict):
            inner = settings.setdefault(key, {})
            if not isinstance(inner, dict):
                raise LesaError(f"{key!r} is a value, not a table: it has no keys {', '.join(value)}")
            merge(inner, value)
        else:
            settings[key] = value
