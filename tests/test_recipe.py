"""Recipes: TOML and overrides in, a checked dataclass out."""

import json
from pathlib import Path

import pytest

from lesa.errors import LesaError
from lesa.learn.experiments.comparison import read_comparison
from lesa.learn.recipe import RECIPES, make_recipe, parse_recipe, read_recipe, recipe_settings

FOLDER = Path(__file__).parents[1] / "configs"
COMPARISONS = sorted(FOLDER.glob("compare-*.toml"))
CONFIGS = sorted(set(FOLDER.glob("*.toml")) - set(COMPARISONS))
NEEDED = {"dataset": "d", "regions": "r", "vectors": ["v"]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_project_is_a_recipe(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.epochs or recipe.steps


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_comparison_of_the_project_can_be_read(path: Path) -> None:
    # The comparison of all methods, one of closed forms, and one of the recommended recipe and its parts.
    assert (
        len(read_comparison(path).methods)
        > {"compare-flickr8k": 10, "compare-synthesised": 2, "compare-best": 9}[path.stem]
    )


def test_a_closed_form_sees_every_photo_once() -> None:
    with pytest.raises(LesaError, match="epochs = 1"):
        make_recipe({"recipe": "eszsl", "epochs": 2, **NEEDED})


def test_the_published_recipe_has_the_papers_numbers() -> None:
    recipe = make_recipe({"recipe": "published", **NEEDED})
    assert (recipe.model.attentions, recipe.model.front, recipe.batch_size) == (10, True, 32)
    assert (recipe.loss.distribution, recipe.loss.relevance, recipe.loss.diversity) == (0.1, 0.001, 0.01)
    assert (recipe.optimiser.kind, recipe.optimiser.learning_rate, recipe.checkpoint) == ("rmsprop-tf", 1e-3, "last")
    assert not recipe.centred


def test_the_contrastive_recipe_is_what_the_documents_say() -> None:
    recipe = make_recipe({"recipe": "contrastive", **NEEDED})
    assert (recipe.model.front, recipe.model.unit_codes, recipe.model.selection) == (False, True, "log-mean-exp")
    assert (recipe.optimiser.kind, recipe.optimiser.weight_decay, recipe.batch_size) == ("adamw", 0.01, 64)
    assert recipe.centred
    assert recipe.checkpoint == "best"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_json_as_it_was(name: str) -> None:
    recipe = make_recipe({"recipe": name, **NEEDED, "model": {"grid": [7, 7]}})
    assert parse_recipe(json.loads(json.dumps(recipe_settings(recipe))), "here") == recipe


def test_overrides_reach_nested_keys_and_keep_their_neighbours(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('recipe = "contrastive"\ndataset = "d"\nregions = "r"\nvectors = ["v"]\n')
    recipe = read_recipe(config, ["model.attentions=1", "seed=7", "dataset=other/place", "model.grid=[3, 5]"])
    assert (recipe.model.attentions, recipe.seed, recipe.dataset, recipe.model.grid) == (1, 7, "other/place", (3, 5))
    assert recipe.model.unit_codes


def test_a_length_in_steps_takes_the_place_of_the_recipes_epochs() -> None:
    recipe = make_recipe({**NEEDED, "steps": 10})
    assert (recipe.steps, recipe.epochs) == (10, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"model": {"attention": 3}}, r"no key 'model\.attention'; did you mean 'attentions'"),
        ({"model": {"attentions": "many"}}, r"model\.attentions"),
        ({"model": {"attentions": 0}}, "at least 1"),
        ({"loss": {"kind": "rankin"}}, r"loss\.kind is 'rankin'; did you mean 'ranking'"),
        ({"model": {"kind": "esszl"}}, r"model\.kind is 'esszl'; did you mean 'eszsl'"),
        ({"model": {"settings": {"ridge": 1}}}, r"no key 'model\.settings\.ridge'; there are no such settings"),
        (
            {"recipe": "eszsl", "model": {"settings": {"rigde": 1}}},
            "did you mean 'ridge'. There are: label_ridge, ridge",
        ),
        ({"recipe": "eszsl", "model": {"settings": {"ridge": 0}}}, r"model\.settings\.ridge: .* greater than 0"),
        ({"recipe": "biam", "model": {"settings": {"hidden": 12}}}, "multiple of its 8 heads"),
        ({"recipe": "publishd"}, "did you mean 'published'"),
        ({"epochs": 2, "steps": 2}, "either as `epochs` or as `steps`"),
        ({"vectors": []}, "names no source"),
        ({"seed": -1}, "seed is -1"),
        ({"optimiser": {"learning_rate": -1}}, "expected a positive number"),
        ({"model": {"grid": [0, 7]}}, "rows and columns of at least 1"),
        ({"model": 3}, "model"),
    ],
)
def test_a_mistake_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LesaError, match=message):
        make_recipe({**NEEDED, **settings})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(LesaError, match="dataset"):
        make_recipe({"regions": "r", "vectors": ["v"]})


@pytest.mark.parametrize("text", ["seed", "=3"])
def test_what_is_no_override_is_refused(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text('dataset = "d"\nregions = "r"\nvectors = ["v"]\n')
    with pytest.raises(LesaError, match="KEY=VALUE"):
        read_recipe(config, [text])


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("dataset = \n")
    with pytest.raises(LesaError, match="not valid TOML"):
        read_recipe(config)
    with pytest.raises(LesaError, match="does not exist"):
        read_recipe(tmp_path / "none.toml")
