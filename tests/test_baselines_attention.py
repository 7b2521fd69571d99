"""Attention per label and per cluster, BiAM and SDL: their numbers against float64 NumPy, and that they learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from lesa.errors import LesaError
from lesa.learn import methods
from lesa.learn.baselines.attention_per_cluster import ClusterOutput, k_means, nearest
from lesa.learn.evaluate import evaluate_run
from lesa.learn.losses import LOSSES, LossConfig, diversity_weight, sdl_loss
from lesa.learn.model import CodeScores, Model, ModelConfig
from lesa.learn.recipe import make_recipe
from lesa.learn.run import open_run
from lesa.learn.train import train

B, D, E, C, M, S, H, GRID = 3, 5, 4, 6, 3, 7, 16, (2, 4)
R = GRID[0] * GRID[1]
Weights = dict[str, np.ndarray]
SEEN_SE = torch.tensor(np.random.default_rng(4).normal(size=(S, E)))

KINDS: tuple[str, ...] = ("attention-per-label", "attention-per-cluster", "biam", "sdl")
kinds = pytest.mark.parametrize("kind", KINDS)
# Photos with both kinds of label, one present label, present ones only, absent ones only.
TARGETS_BC = np.array(
    [[1, -1, 0, 1, 1, -1], [-1, 0, 1, 0, -1, -1], [1, 1, 0, 1, 0, 0], [-1, -1, 0, 0, -1, -1]], np.int8
)


def config_of(kind: str, **settings: Any) -> ModelConfig:
    sizes = {"region_size": D, "vector_size": E, "attentions": M, "grid": GRID, "front": False}
    return ModelConfig(kind=kind, **{**sizes, "settings": {"hidden": H} if kind == "biam" else {}, **settings})


def build_model(config: ModelConfig, seed: int) -> Model:
    return methods.build_model(config, SEEN_SE, seed)


def model_of(config: ModelConfig) -> tuple[Model, Weights]:
    """A model in double precision whose every number is drawn (but the seen labels' centroids), and these numbers."""
    model = build_model(config, seed=0).double().eval()
    rng = np.random.default_rng(3)
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.float64 and name != "centroids_ME":
            drawn = rng.normal(size=tensor.shape) * (2 / D) ** 0.5
            tensor.copy_(torch.tensor(np.abs(drawn) + 0.5 if name.endswith("running_var") else drawn))
    return model, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def inputs(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, R, D)), rng.normal(size=(C, E))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def softmax(x: np.ndarray) -> np.ndarray:
    exp = np.exp(x - x.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def expect_label(w: Weights, regions_RD: np.ndarray, v: np.ndarray) -> float:
    """h first, then its score: the other order of the sums."""
    h_D = softmax(regions_RD @ w["u"] @ v) @ regions_RD
    return float(h_D @ w["w"] @ v)


def expect_cluster(w: Weights, regions_RD: np.ndarray, v: np.ndarray) -> float:
    m = np.argmin([np.sum((v - centroid) ** 2) for centroid in w["centroids_ME"]])
    logits_R = np.tanh(regions_RD @ w["w1"][:-1] + w["w1"][-1]) @ w["w2"][:-1, m] + w["w2"][-1, m]
    return float(softmax(logits_R) @ regions_RD @ w["word_space.w"] @ v)


def convolved(w: Weights, name: str, regions_RD: np.ndarray) -> np.ndarray:
    """BN(ReLU(conv3x3)) over the grid, a position at a time."""
    rows, columns = GRID
    kernel = w[f"{name}.convolution.weight"]
    padded = np.pad(regions_RD.reshape(rows, columns, -1), ((1, 1), (1, 1), (0, 0)))
    maps = [
        np.einsum("yxi,oiyx->o", padded[y : y + 3, x : x + 3], kernel) + w[f"{name}.convolution.bias"]
        for y in range(rows)
        for x in range(columns)
    ]
    n = {key: w[f"{name}.normalisation.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
    scaled = (np.maximum(maps, 0) - n["running_mean"]) / np.sqrt(n["running_var"] + 1e-3)
    return np.asarray(scaled * n["weight"] + n["bias"])


def expect_biam(w: Weights, regions_RD: np.ndarray, v: np.ndarray) -> float:
    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])

    h = convolved(w, "enter", regions_RD)
    q, k, value = np.split(h @ w["attention.in_proj_weight"].T + w["attention.in_proj_bias"], 3, axis=1)
    heads = [slice(i, i + H // 8) for i in range(0, H, H // 8)]
    mixed = [softmax(q[:, i] @ k[:, i].T / np.sqrt(H / 8)) @ value[:, i] for i in heads]
    o = h + linear("attention.out_proj", np.concatenate(mixed, axis=1))
    e_r = o + linear("feed_forward.2", np.maximum(linear("feed_forward.0", o), 0))
    g = leaky(linear("channels", h))
    c = g / (1 + np.exp(-g.mean(axis=0) * linear("scene", regions_RD.mean(axis=0))))
    e_g = c + convolved(w, "spread", c)
    e_f = leaky(linear("join", np.concatenate([e_r, e_g], axis=1)))
    return float(np.sort(e_f @ linear("classifiers", v))[-6:].mean())


def expect_sdl(w: Weights, regions_RD: np.ndarray, v: np.ndarray) -> float:
    rows_ME = (w["rows.weight"] @ regions_RD.mean(axis=0) + w["rows.bias"]).reshape(M, E)
    return float((rows_ME @ v).max())


EXPECTED: dict[str, Callable[[Weights, np.ndarray, np.ndarray], float]] = {
    "attention-per-label": expect_label,
    "attention-per-cluster": expect_cluster,
    "biam": expect_biam,
    "sdl": expect_sdl,
}


@kinds
@pytest.mark.parametrize("learning", [False, True], ids=["inference", "gradients"])
def test_scores_are_those_of_the_equations(kind: str, learning: bool) -> None:
    model, weights = model_of(config_of(kind))
    regions_BRD, vectors_CE = inputs()
    with torch.set_grad_enabled(learning):
        found_BC = model(torch.tensor(regions_BRD), torch.tensor(vectors_CE)).scores_BC
    expected_BC = [[EXPECTED[kind](weights, regions, v) for v in unit(vectors_CE)] for regions in regions_BRD]
    np.testing.assert_allclose(found_BC.detach(), expected_BC, rtol=1e-10)


@kinds
def test_a_labels_score_depends_on_no_other_label(kind: str) -> None:
    model, _ = model_of(config_of(kind))
    regions_BRD, vectors_CE = map(torch.tensor, inputs())
    with torch.no_grad():
        all_BC = model(regions_BRD, vectors_CE).scores_BC
        some_BC = model(regions_BRD, 3 * vectors_CE[[4, 1]]).scores_BC
    torch.testing.assert_close(some_BC, all_BC[:, [4, 1]])


@kinds
def test_weights_in_a_fresh_model_give_the_same_scores(kind: str) -> None:
    model, _ = model_of(config_of(kind))
    fresh = build_model(config_of(kind), seed=9).double().eval()
    fresh.load_state_dict(model.state_dict())
    regions_BRD, vectors_CE = map(torch.tensor, inputs())
    with torch.no_grad():
        assert torch.equal(fresh(regions_BRD, vectors_CE).scores_BC, model(regions_BRD, vectors_CE).scores_BC)


@kinds
def test_each_learns_more_than_a_constant_can(demo_data: Path, tmp_path: Path, kind: str) -> None:
    settings = {"settings": {"hidden": 16}} if kind == "biam" else {}
    recipe = {
        "recipe": "contrastive",
        "dataset": str(demo_data / "dataset"),
        "regions": str(demo_data / "regions"),
        "vectors": [str(demo_data / "vectors.safetensors")],
        "epochs": 2,
        "model": {"kind": kind, "attentions": 4, "unit_codes": False, "selection": "max", **settings},
        "loss": {"kind": "sdl" if kind == "sdl" else "ranking"},
        "optimiser": {"kind": "adamw", "learning_rate": 3e-3},
    }
    train(make_recipe(recipe), tmp_path / "run")
    evaluated = evaluate_run(open_run(tmp_path / "run"))
    # A constant gives every photo the same scores: then a label's average precision is its share of the photos.
    present_NS = evaluated.targets_NC[:, -292:] > 0
    assert evaluated.reports["lesa"]["seen"].mean_average_precision > 200 * present_NS.mean()


def test_attentions_per_label_start_as_the_mean_region() -> None:
    model = build_model(config_of("attention-per-label"), seed=0)
    regions_BRD, vectors_CE = torch.ones(B, 1, D) * torch.arange(R)[:, None], torch.ones(C, E)
    with torch.no_grad():
        found_BC = model(regions_BRD, vectors_CE).scores_BC
        mean_BC = model(regions_BRD.mean(dim=1, keepdim=True), vectors_CE).scores_BC
    torch.testing.assert_close(found_BC, mean_BC)


def test_the_front_of_the_attention_per_label_is_lesas() -> None:
    config = config_of("attention-per-label", front=True)
    model, weights = model_of(config)
    regions_BRD, vectors_CE = inputs()
    front = {k.removeprefix("front."): torch.tensor(v) for k, v in weights.items() if k.startswith("front.")}
    lesa = build_model(config_of("shared-attention", front=True), seed=1).double().eval()
    lesa.get_submodule("front").load_state_dict(front)
    with torch.no_grad():
        found_BC = model(torch.tensor(regions_BRD), torch.tensor(vectors_CE)).scores_BC
        after_BRD = lesa.get_submodule("front")(torch.tensor(regions_BRD)).numpy()
    expected_BC = [[expect_label(weights, regions, v) for v in unit(vectors_CE)] for regions in after_BRD]
    np.testing.assert_allclose(found_BC, expected_BC, rtol=1e-10)


def test_one_cluster_is_lesa_with_one_attention() -> None:
    model, _ = model_of(config_of("attention-per-cluster", attentions=1))
    lesa = build_model(config_of("shared-attention", attentions=1), seed=1).double()
    lesa.load_state_dict({k: v for k, v in model.state_dict().items() if k != "centroids_ME"})
    regions_BRD, vectors_CE = map(torch.tensor, inputs())
    with torch.no_grad():
        torch.testing.assert_close(model(regions_BRD, vectors_CE).scores_BC, lesa(regions_BRD, vectors_CE).scores_BC)


def test_the_winner_of_a_label_is_its_clusters_attention() -> None:
    model, _ = model_of(config_of("attention-per-cluster"))
    with torch.no_grad():
        out = model(*map(torch.tensor, inputs()))
    assert isinstance(out, ClusterOutput)
    assert len(set(out.cluster_C.tolist())) > 1
    assert torch.equal(out.by_attention_BMC.gather(1, out.winner_BC[:, None])[:, 0], out.scores_BC)


def test_maps_of_a_model_with_a_front_lie_half_a_region_below_and_right() -> None:
    kinds = ("shared-attention", "attention-per-cluster", "attention-per-label")
    assert [build_model(config_of(kind, front=True), seed=0).region_shift for kind in kinds] == [0.5] * 3
    assert [build_model(config_of(kind), seed=0).region_shift for kind in kinds] == [0] * 3
    # The control has no front, whatever the configuration says.
    assert build_model(config_of("mean-pool", front=True), seed=0).region_shift == 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), clusters=st.integers(1, 6), points=st.integers(6, 40))
def test_a_centroid_is_the_mean_of_the_points_that_are_nearest_to_it(seed: int, clusters: int, points: int) -> None:
    points_NE = torch.tensor(np.random.default_rng(seed).normal(size=(points, E)))
    centroids_ME = k_means(points_NE, clusters)
    distance_NM = ((points_NE[:, None] - centroids_ME) ** 2).sum(dim=2)
    own_N = nearest(points_NE, centroids_ME)
    torch.testing.assert_close(distance_NM.gather(1, own_N[:, None])[:, 0], distance_NM.amin(dim=1))
    for m in own_N.unique():
        torch.testing.assert_close(centroids_ME[m], points_NE[own_N == m].mean(dim=0))
    assert torch.equal(centroids_ME, k_means(points_NE, clusters))


def test_clusters_that_stand_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    points_NE = np.repeat(10 * np.eye(2, E), 20, axis=0) + rng.normal(size=(40, E))
    points = torch.tensor(points_NE)
    own_N = nearest(points, k_means(points, 2))
    assert len(own_N[:20].unique()) == len(own_N[20:].unique()) == 1 != len(own_N.unique())


def test_labels_with_the_same_vector_do_no_harm() -> None:
    assert torch.equal(k_means(torch.ones(5, E), 3), torch.ones(3, E, dtype=torch.float64))


def test_more_clusters_than_seen_labels_are_refused() -> None:
    with pytest.raises(LesaError, match=r"model.attentions is 3, but there are 2 seen labels"):
        methods.build_model(config_of("attention-per-cluster"), torch.ones(2, E), seed=0)


def test_biam_refuses_units_that_its_heads_do_not_share_evenly() -> None:
    with pytest.raises(LesaError, match=r"model.settings.hidden is 12; .* multiple of its 8 heads"):
        build_model(config_of("biam", settings={"hidden": 12}), seed=0)


@pytest.mark.parametrize(("grid", "named"), [((3, 3), "a grid of 3 x 3"), (None, "a square grid")])
def test_biam_refuses_regions_that_make_no_grid(grid: tuple[int, int] | None, named: str) -> None:
    model = build_model(config_of("biam", grid=grid), seed=0)
    with pytest.raises(LesaError, match=f"8 regions do not make {named}"):
        model(torch.ones(1, R, D), torch.ones(C, E))


def test_biam_pools_all_regions_where_there_are_few() -> None:
    model = build_model(config_of("biam", grid=(1, 2)), seed=0).eval()
    assert torch.isfinite(model(torch.ones(1, 2, D), torch.ones(C, E)).scores_BC).all()


def expect_sdl_loss(rows_BME: np.ndarray, vectors_CE: np.ndarray, targets_BC: np.ndarray) -> float:
    """The loss a photo and a pair at a time."""
    total = 0.0
    for rows_ME, targets_C in zip(rows_BME, targets_BC, strict=True):
        scores_C = (rows_ME @ unit(vectors_CE).T).max(axis=0)
        present, absent = np.flatnonzero(targets_C > 0), np.flatnonzero(targets_C < 0)
        pairs = sum(np.log(1 + np.exp(scores_C[n] - scores_C[p])) for p in present for n in absent)
        weight = 1 + (unit(vectors_CE)[present].var(axis=0, ddof=1).sum() if len(present) > 1 else 0)
        spread = rows_ME.var(axis=0, ddof=1).sum() if len(rows_ME) > 1 else 0
        total += 0.7 * weight * pairs / max(len(present), 1) + 0.3 * spread
    return total / len(rows_BME)


def rows_of(rows_BME: torch.Tensor, vectors_CE: torch.Tensor) -> CodeScores:
    return CodeScores((rows_BME @ torch.nn.functional.normalize(vectors_CE, dim=1).T).amax(dim=1), rows_BME)


targets_of_photos = hnp.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.integers(-1, 1))


@settings(deadline=None, max_examples=60)
@given(targets_BC=targets_of_photos, rows=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_the_loss_of_sdl_is_that_of_its_equation(targets_BC: np.ndarray, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows_BME, vectors_CE = rng.normal(size=(len(targets_BC), rows, E)), rng.normal(size=(targets_BC.shape[1], E))
    vectors = torch.tensor(vectors_CE)
    found = sdl_loss(rows_of(torch.tensor(rows_BME), vectors), vectors, torch.tensor(targets_BC))
    np.testing.assert_allclose(found, expect_sdl_loss(rows_BME, vectors_CE, targets_BC), rtol=1e-10, atol=1e-12)


def test_the_gradient_of_sdls_loss_is_right() -> None:
    rng = np.random.default_rng(2)
    vectors, targets = torch.tensor(rng.normal(size=(C, E))), torch.tensor(TARGETS_BC)
    rows_BME = torch.tensor(rng.normal(size=(len(TARGETS_BC), M, E)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: sdl_loss(rows_of(rows, vectors), vectors, targets), [rows_BME])


def test_a_photo_of_different_things_weighs_more() -> None:
    # Two opposite vectors: their mean is zero, so that the unbiased variance is (1 + 1) / (2 - 1) = 2.
    vectors = torch.tensor([[1.0, 0.0], [5.0, 0.0], [-2.0, 0.0]])
    targets = torch.tensor([[1, 1, -1], [1, -1, 1], [1, 0, 0], [-1, 0, 0]])
    assert diversity_weight(vectors, targets).tolist() == [1, 3, 1, 1]


def test_the_loss_of_sdl_refuses_a_model_without_rows() -> None:
    out = build_model(config_of("attention-per-label"), seed=0)(torch.ones(1, R, D), torch.ones(C, E))
    with pytest.raises(LesaError, match="the loss 'sdl' needs a model whose photos are points"):
        LOSSES["sdl"](LossConfig(kind="sdl"), out, torch.ones(C, E), torch.ones(1, C))
