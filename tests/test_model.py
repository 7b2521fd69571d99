"""The model: its numbers against the NumPy transcription, what its output promises, and what it refuses."""

import math
from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from helpers import oracle
from lesa.errors import LesaError
from lesa.learn import methods
from lesa.learn.model import Model, ModelConfig, Output

B, D, E, C, GRID = 3, 5, 4, 6, (2, 3)
R = GRID[0] * GRID[1]
FIELDS = ("scores_BC", "by_attention_BMC", "attention_BMR", "logits_BMR", "codes_BME", "uniform_scores_BC")

VARIANTS: dict[str, dict[str, Any]] = {
    "no front": {"front": False},
    "front": {"front": True},
    "one attention": {"front": True, "attentions": 1},
    "separate": {"front": False, "separate": True},
    "separate with front": {"front": True, "separate": True},
    "unit codes": {"front": False, "unit_codes": True},
    "soft maximum": {"front": False, "selection": "log-mean-exp"},
    "contrastive": {"front": False, "unit_codes": True, "selection": "log-mean-exp"},
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def build_model(config: ModelConfig, seed: int) -> Model:
    """A new model; none of these learns anything from the seen labels before training."""
    return methods.build_model(config, torch.ones(1, config.vector_size), seed)


def config_of(variant: Mapping[str, Any]) -> ModelConfig:
    return ModelConfig(**{"region_size": D, "vector_size": E, "attentions": 3, "grid": GRID, **variant})


def variables_of(config: ModelConfig, seed: int = 0) -> oracle.Variables:
    return oracle.random_variables(
        np.random.default_rng(seed),
        config.region_size,
        config.vector_size,
        config.attentions,
        front=config.front,
        separate=config.separate,
        unit_codes=config.unit_codes,
    )


def model_with(config: ModelConfig, variables: oracle.Variables) -> torch.nn.Module:
    """The model in double precision, every one of its numbers taken from the variables."""
    model = build_model(config, seed=0).double()
    state = {name: torch.tensor(x) for name, x in oracle.state(variables).items()}
    counter = {name: x for name, x in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict(state | counter)
    return model


def oracle_settings(config: ModelConfig) -> dict[str, Any]:
    return {"grid": config.grid if config.front else None, "soft_selection": config.selection == "log-mean-exp"}


def inputs(seed: int = 1, labels: int = C) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, R, D)), rng.normal(size=(labels, E))


def run(model: torch.nn.Module, regions_BRD: np.ndarray, vectors_CE: np.ndarray) -> Output:
    with torch.no_grad():
        out = model(torch.tensor(regions_BRD), torch.tensor(vectors_CE))
    assert isinstance(out, Output)
    return out


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected number; shapes must agree."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / (np.abs(expected).max() or 1.0))


@variants
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_every_output_agrees_with_the_transcription(variant: dict[str, Any], training: bool) -> None:
    config = config_of(variant)
    variables, (regions_BRD, vectors_CE) = variables_of(config), inputs()
    out = run(model_with(config, variables).train(training), regions_BRD, vectors_CE)
    expected = oracle.forward(variables, regions_BRD, vectors_CE, training=training, **oracle_settings(config))
    for field in FIELDS:
        assert difference(getattr(out, field), getattr(expected, field)) < 1e-12, field


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_the_nus_wide_shape_agrees_with_the_transcription(dtype: torch.dtype, tolerance: float) -> None:
    config = ModelConfig()
    variables = variables_of(config)
    rng = np.random.default_rng(2)
    regions_BRD, vectors_CE = rng.gamma(1.0, size=(2, 196, 512)), rng.normal(size=(925, 300))
    expected = oracle.forward(variables, regions_BRD, vectors_CE, grid=(14, 14), training=True)
    with torch.no_grad():
        model = model_with(config, variables).to(dtype)
        out = model(torch.tensor(regions_BRD, dtype=dtype), torch.tensor(vectors_CE, dtype=dtype))
    for field in FIELDS:
        assert difference(getattr(out, field), getattr(expected, field)) < tolerance, field


def test_the_fronts_running_averages_move_as_tensorflows_do() -> None:
    config = config_of({"front": True})
    variables, (regions_BRD, vectors_CE) = variables_of(config), inputs()
    model = model_with(config, variables).train()
    for _ in range(3):
        run(model, regions_BRD, vectors_CE)
        variables |= oracle.moved_averages(variables, regions_BRD, GRID)
    state = model.state_dict()
    for name in (oracle.MEAN, oracle.VARIANCE):
        assert difference(state[oracle.STATE_NAMES[name]], variables[name]) < 1e-12
    run(model.eval(), regions_BRD, vectors_CE)
    assert difference(state[oracle.STATE_NAMES[oracle.MEAN]], variables[oracle.MEAN]) < 1e-12


def test_the_front_looks_one_row_down_and_one_column_right() -> None:
    # A kernel of ones on a map that counts 1 to 4: each place sums itself and its neighbours below and to the right.
    config = ModelConfig(region_size=1, vector_size=1, attentions=1)
    front = build_model(config, seed=0).eval().front
    with torch.no_grad():
        front.convolution.weight.fill_(1.0)
        out = front(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
    torch.testing.assert_close(out.flatten() * math.sqrt(1 + 1e-3), torch.tensor([10.0, 6.0, 7.0, 4.0]))


@variants
def test_scores_are_selected_products_of_codes_and_unit_vectors(variant: dict[str, Any]) -> None:
    config = config_of(variant)
    regions_BRD, vectors_CE = inputs()
    out = run(model_with(config, variables_of(config)).eval(), regions_BRD, vectors_CE)
    unit_CE = torch.tensor(vectors_CE / np.linalg.norm(vectors_CE, axis=1, keepdims=True))
    products_BMC = torch.einsum("bme,ce->bmc", out.codes_BME, unit_CE)
    torch.testing.assert_close(out.by_attention_BMC, products_BMC)
    if config.selection == "max":
        torch.testing.assert_close(out.scores_BC, products_BMC.max(dim=1).values)
    else:
        torch.testing.assert_close(out.scores_BC, products_BMC.exp().mean(dim=1).log())
    torch.testing.assert_close(out.attention_BMR.sum(dim=2), torch.ones(B, config.attentions, dtype=torch.float64))
    torch.testing.assert_close(out.attention_BMR, out.logits_BMR.softmax(dim=2))


@variants
def test_codes_do_not_depend_on_the_labels(variant: dict[str, Any]) -> None:
    config = config_of(variant)
    model = model_with(config, variables_of(config)).eval()
    regions_BRD, vectors_CE = inputs()
    _, others_CE = inputs(seed=9, labels=11)
    assert torch.equal(run(model, regions_BRD, vectors_CE).codes_BME, run(model, regions_BRD, others_CE).codes_BME)


def test_unit_codes_have_the_length_of_the_temperature() -> None:
    config = config_of({"front": False, "unit_codes": True})
    regions_BRD, vectors_CE = inputs()
    out = run(build_model(config, seed=0).double(), regions_BRD, vectors_CE)
    torch.testing.assert_close(out.codes_BME.norm(dim=2), torch.full((B, 3), 1 / 0.07, dtype=torch.float64))


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(C)), kept=st.integers(1, C), seed=st.integers(0, 2**32 - 1))
def test_a_label_is_scored_alike_in_any_order_and_company(order: list[int], kept: int, seed: int) -> None:
    config = config_of({"front": True})
    model = model_with(config, variables_of(config, seed)).eval()
    regions_BRD, vectors_CE = inputs(seed)
    scores_BC = run(model, regions_BRD, vectors_CE).scores_BC
    torch.testing.assert_close(run(model, regions_BRD, vectors_CE[order]).scores_BC, scores_BC[:, order])
    torch.testing.assert_close(run(model, regions_BRD, vectors_CE[:kept]).scores_BC, scores_BC[:, :kept])


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.floats(1e-3, 1e3), min_size=C, max_size=C))
def test_the_length_of_a_label_vector_does_not_matter(lengths: list[float]) -> None:
    config = config_of({"front": False})
    model = model_with(config, variables_of(config))
    regions_BRD, vectors_CE = inputs()
    out, scaled = (run(model, regions_BRD, v) for v in (vectors_CE, vectors_CE * np.array(lengths)[:, None]))
    torch.testing.assert_close(scaled.scores_BC, out.scores_BC)


def test_without_the_front_the_order_of_the_regions_does_not_matter() -> None:
    config = config_of({"front": False})
    model = model_with(config, variables_of(config))
    regions_BRD, vectors_CE = inputs()
    out, turned = (run(model, regions, vectors_CE) for regions in (regions_BRD, regions_BRD[:, ::-1].copy()))
    torch.testing.assert_close(turned.scores_BC, out.scores_BC)
    torch.testing.assert_close(turned.attention_BMR, out.attention_BMR.flip(2))


def test_the_control_scores_the_mean_region() -> None:
    config = config_of({"kind": "mean-pool", "front": False, "attentions": 1})
    model = build_model(config, seed=0).double()
    regions_BRD, vectors_CE = inputs()
    out = run(model, regions_BRD, vectors_CE)
    w_DE = model.state_dict()["word_space.w"].numpy()
    unit_CE = vectors_CE / np.linalg.norm(vectors_CE, axis=1, keepdims=True)
    assert difference(out.scores_BC, regions_BRD.mean(axis=1) @ w_DE @ unit_CE.T) < 1e-12
    assert torch.equal(out.scores_BC, out.uniform_scores_BC)
    assert (out.attention_BMR == 1 / R).all()


def test_a_new_model_is_a_function_of_its_seed_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    config = config_of({"front": True})
    first, again, other = (build_model(config, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["w1"], other["w1"])


@pytest.mark.parametrize(
    ("name", "fan_in"),
    [("w1", 129), ("w2", 129), ("word_space.w", 128), ("front.convolution.weight", 4 * 128)],
)
def test_a_new_matrix_has_hes_variance_and_is_cut_at_two_deviations(name: str, fan_in: int) -> None:
    config = ModelConfig(region_size=128, vector_size=300, attentions=40)
    weights = build_model(config, seed=0).state_dict()[name]
    deviation = math.sqrt(2 / fan_in)
    assert weights.std().item() == pytest.approx(deviation, rel=0.03)
    assert abs(weights.mean().item()) < 0.05 * deviation
    # A normal distribution cut at two of its deviations keeps 0.88 of its own deviation.
    assert 2.1 * deviation < weights.abs().max().item() <= 2 / 0.879 * deviation


def test_regions_that_are_no_square_need_a_grid() -> None:
    model = build_model(config_of({"front": True, "grid": None}), seed=0)
    with pytest.raises(LesaError, match=r"6 regions do not make a square grid: set model\.grid"):
        model(torch.zeros(B, R, D), torch.zeros(C, E))


def test_regions_that_do_not_fill_the_grid_are_refused() -> None:
    model = build_model(config_of({"front": True, "grid": (2, 4)}), seed=0)
    with pytest.raises(LesaError, match="6 regions do not make a grid of 2 x 4"):
        model(torch.zeros(B, R, D), torch.zeros(C, E))


def test_a_transposed_grid_is_another_model() -> None:
    variables, (regions_BRD, vectors_CE) = variables_of(config_of({"front": True})), inputs()
    scores = [
        run(model_with(config_of({"grid": grid}), variables).eval(), regions_BRD, vectors_CE).scores_BC
        for grid in ((2, 3), (3, 2))
    ]
    assert not torch.allclose(*scores)


@pytest.mark.parametrize("kind", ["shared-attention", "mean-pool"])
@pytest.mark.parametrize(
    ("regions", "vectors", "message"),
    [
        ((B, R, D + 1), (C, E), r"regions: expected .* last size of 5, got \(3, 6, 6\)"),
        ((R, D), (C, E), r"regions: expected shape \(B, R, D\).* got \(6, 5\)"),
        ((B, R, D), (C, E + 1), r"label vectors: expected .* last size of 4, got \(6, 5\)"),
        ((B, R, D), (E,), r"label vectors: expected shape \(C, E\).* got \(4,\)"),
    ],
)
def test_wrong_sizes_are_refused(kind: str, regions: tuple[int, ...], vectors: tuple[int, ...], message: str) -> None:
    model = build_model(config_of({"kind": kind, "front": False}), seed=0)
    with pytest.raises(LesaError, match=message):
        model(torch.zeros(regions), torch.zeros(vectors))


@pytest.mark.parametrize("name", ["region_size", "vector_size", "attentions"])
def test_a_size_below_one_is_refused(name: str) -> None:
    with pytest.raises(LesaError, match=rf"model\.{name} is 0; expected at least 1"):
        ModelConfig(**{name: 0})
