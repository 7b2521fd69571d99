"""The compared methods on the mean region: against NumPy, in the training loop, and through a checkpoint."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from lesa.errors import LesaError
from lesa.label_map import LabelMap
from lesa.learn.baselines.eszsl import RidgeRegression
from lesa.learn.baselines.fast0tag import principal_directions
from lesa.learn.datasets.dataset import read_dataset
from lesa.learn.evaluate import Evaluation, evaluate_run
from lesa.learn.losses import contrastive_loss
from lesa.learn.methods import KINDS, build_model
from lesa.learn.model import CodeModel, KnownClasses, Model, ModelConfig
from lesa.learn.recipe import make_recipe
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import load_tensors, open_run, save_tensors
from lesa.learn.train import Progress, train
from lesa.vectors import write_table

B, R, D, E, S, C = 12, 4, 7, 5, 6, 3
POOLED: list[str] = ["conse", "eszsl", "fast0tag", "fast0tag-linear", "synthesised"]
POOLED += ["training-free", "logistic", "wsabie"]
SEEN_ONLY: list[str] = ["logistic", "wsabie"]
CLOSED: list[str] = ["eszsl", "fast0tag-linear", "synthesised"]


SETTINGS = {"conse": {"top_labels": 3}, "fast0tag": {"hidden": 4}, "wsabie": {"hidden": 4}}


def config_of(kind: str, **settings: float) -> ModelConfig:
    size = E if kind == "training-free" else D
    return ModelConfig(kind=kind, region_size=size, vector_size=E, settings={**SETTINGS.get(kind, {}), **settings})


def regions(kind: str = "eszsl", seed: int = 0) -> np.ndarray:
    # Features with a mean, as those after a ReLU have.
    return 1 + np.random.default_rng(seed).normal(size=(B, R, config_of(kind).region_size))


def vectors(labels: int = S, seed: int = 1) -> np.ndarray:
    return 3 * np.random.default_rng(seed).normal(size=(labels, E))


def targets(seed: int = 2) -> np.ndarray:
    """Targets of which some are not annotated; the last photo has no present label, the one before no absent one."""
    targets_BS = np.random.default_rng(seed).choice([1, -1, -1, 0], size=(B, S))
    targets_BS[-1] = -1
    targets_BS[-2] = 1
    return targets_BS


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def fitted(kind: str, **settings: float) -> Model:
    """A new model in double precision; one with a closed form has summed up three batches."""
    model = build_model(config_of(kind, **settings), torch.tensor(vectors()), seed=0).double()
    if kind in CLOSED:
        with torch.no_grad():
            for rows in (slice(0, 5), slice(5, 10), slice(10, B)):
                model.accumulate(*map(torch.tensor, (regions()[rows], vectors(), targets()[rows])))
            model.solve()
    return model.eval()


def scores(model: Model, regions_BRD: np.ndarray, vectors_CE: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(regions_BRD), torch.tensor(vectors_CE)).scores_BC.numpy()


def arrays(model: Model) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_conse_agrees_with_its_transcription() -> None:
    model = fitted("conse")
    w = arrays(model)
    expected = np.empty((B, C))
    for b, x in enumerate(regions().mean(axis=1)):
        probabilities = 1 / (1 + np.exp(-(w["classifier.weight"] @ x + w["classifier.bias"])))
        top = np.argsort(-probabilities)[:3]
        embedding = sum(probabilities[s] * unit(vectors()[s]) for s in top) / probabilities[top].sum()
        expected[b] = [embedding @ v / np.linalg.norm(embedding) / np.linalg.norm(v) for v in vectors(C, 3)]
    assert same(scores(model, regions(), vectors(C, 3)), expected)


def test_conse_trains_on_logits_and_takes_all_seen_labels_where_there_are_few() -> None:
    model = fitted("conse", top_labels=50)
    w = arrays(model)
    assert np.isfinite(scores(model, regions(), vectors(C, 3))).all()
    logits_BS = regions().mean(axis=1) @ w["classifier.weight"].T + w["classifier.bias"]
    assert same(scores(model.train(), regions(), vectors()), logits_BS)


def test_conse_embeds_a_photo_for_which_every_seen_label_is_improbable() -> None:
    model = fitted("conse").float()
    with torch.no_grad():
        model.get_parameter("classifier.bias").fill_(-500)
        found = model(torch.tensor(regions()).float(), torch.tensor(vectors(C, 3)).float()).scores_BC
    assert found.abs().max() > 0.1


def test_eszsl_agrees_with_the_papers_closed_form() -> None:
    x_BD, v_SE, y_BS = regions().mean(axis=1), unit(vectors()), targets()
    mean_D = x_BD.mean(axis=0)
    x = x_BD - mean_D
    left = np.linalg.inv(x.T @ x + 2.0 * np.eye(D))
    right = np.linalg.inv(v_SE.T @ v_SE + 0.3 * np.eye(E))
    w_DE = left @ x.T @ y_BS @ v_SE @ right
    found = scores(fitted("eszsl", ridge=2.0, label_ridge=0.3), regions(seed=8), vectors(C, 3))
    assert same(found, (regions(seed=8).mean(axis=1) - mean_D) @ w_DE @ unit(vectors(C, 3)).T)


def test_eszsl_minimises_the_objective_of_its_paper() -> None:
    x = torch.tensor(regions().mean(axis=1) - regions().mean(axis=(0, 1)))
    v, y = torch.tensor(unit(vectors())), torch.tensor(targets(), dtype=torch.float64)
    w = fitted("eszsl", ridge=2.0, label_ridge=0.3).get_parameter("w").detach().requires_grad_()
    squares = [(x @ w @ v.T - y), 2.0**0.5 * w @ v.T, 0.3**0.5 * x @ w, 0.6**0.5 * w]
    torch.stack([part.square().sum() for part in squares]).sum().backward()
    assert w.grad.abs().max() < 1e-10


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The Gaussian kernel with gamma 0.7."""
    return np.array([[np.exp(-0.7 * np.sum((p - q) ** 2)) for q in b] for p in a])


@pytest.mark.parametrize("unit_classifiers", [False, True])
def test_synthesised_classifiers_agree_with_their_transcription(unit_classifiers: bool) -> None:
    settings = {"gamma": 0.7, "kernel_ridge": 0.2, "ridge": 3.0, "unit_classifiers": unit_classifiers}
    x_BD, v_SE, y_BS = regions().mean(axis=1), unit(vectors()), targets()
    mean_D = x_BD.mean(axis=0)
    x = x_BD - mean_D
    g_SD = (np.linalg.inv(x.T @ x + 3.0 * np.eye(D)) @ x.T @ (y_BS - y_BS.mean(axis=0))).T
    g_SD = unit(g_SD) if unit_classifiers else g_SD

    phi_CS = kernel(unit(vectors(C, 3)), v_SE) @ np.linalg.inv(kernel(v_SE, v_SE) + 0.2 * np.eye(S))
    found = scores(fitted("synthesised", **settings), regions(seed=8), vectors(C, 3))
    assert same(found, (regions(seed=8).mean(axis=1) - mean_D) @ (phi_CS @ g_SD).T)


def test_known_classes_are_examples_beside_the_seen_labels() -> None:
    rng = np.random.default_rng(6)
    rows_KD, class_vectors_KE = rng.normal(size=(4, D)), unit(rng.normal(size=(4, E)))
    known = KnownClasses(torch.tensor(class_vectors_KE), torch.tensor(rows_KD))
    config = config_of("synthesised", gamma=0.7, kernel_ridge=0.2, ridge=3.0, classes=True)
    model = build_model(config, torch.tensor(vectors()), seed=0, known=known).double()
    with torch.no_grad():
        model.accumulate(torch.tensor(regions()), torch.tensor(vectors()), torch.tensor(targets()))
        model.solve()
    x = regions().mean(axis=1) - regions().mean(axis=(0, 1))
    y_BS = targets() - targets().mean(axis=0)
    # The seen labels' regressions shrink towards what the classes alone say, as far as that is of use.
    inverse_KK = np.linalg.inv(kernel(class_vectors_KE, class_vectors_KE) + 0.2 * np.eye(4))
    guess_SD = unit(kernel(unit(vectors()), class_vectors_KE) @ inverse_KK @ unit(rows_KD))
    share_S = [max(0.0, (x @ g) @ y / ((x @ g) @ (x @ g))) for g, y in zip(guess_SD, y_BS.T, strict=True)]
    assert 0 < np.count_nonzero(share_S) < S
    start_SD = np.array(share_S)[:, None] * guess_SD
    g_SD = unit(start_SD + (np.linalg.inv(x.T @ x + 3.0 * np.eye(D)) @ x.T @ (y_BS - x @ start_SD.T)).T)
    g_AD = np.vstack([g_SD, unit(rows_KD)])
    v_AE = np.vstack([unit(vectors()), class_vectors_KE])

    w_CD = kernel(unit(vectors(C, 3)), v_AE) @ np.linalg.inv(kernel(v_AE, v_AE) + 0.2 * np.eye(len(v_AE))) @ g_AD
    assert same(scores(model.eval(), regions(), vectors(C, 3)), x @ w_CD.T)


def test_labels_of_unit_length_have_classifiers_of_unit_length() -> None:
    plain, unit_labels = (fitted("synthesised", ridge=3.0, unit_labels=chosen) for chosen in (False, True))
    # Photos that span the space of the regions, one region each: their scores give the classifiers.
    photos = np.linalg.qr(np.random.default_rng(7).normal(size=(D, D)))[0][:, None] + arrays(plain)["mean_D"]
    classifiers_CD = scores(plain, photos, vectors(C, 3)).T
    assert same(scores(unit_labels, photos, vectors(C, 3)).T, unit(classifiers_CD))


@pytest.mark.parametrize("unit_codes", [False, True])
def test_temperature_and_prior_minimise_the_contrastive_loss_of_the_seen_labels(unit_codes: bool) -> None:
    config = replace(config_of("synthesised", ridge=3.0, prior=1.0), unit_codes=unit_codes)
    model = build_model(config, torch.tensor(vectors()), seed=0).double()
    with torch.no_grad():
        model.accumulate(torch.tensor(regions()), torch.tensor(vectors()), torch.tensor(targets()))
        model.solve()
    w = arrays(model.eval())
    whole_BS = scores(model, regions(), vectors())
    similarity_SA = np.exp(-2 * (2 - 2 * unit(vectors()) @ w["anchors_AE"].T))
    prior_S = similarity_SA @ w["prior_A"]

    def loss(scale: float, further_A: np.ndarray) -> float:
        p_A = w["prior_A"] + further_A
        kernel_AA = np.exp(-2 * (2 - 2 * w["anchors_AE"] @ w["anchors_AE"].T)) + 0.3 * np.eye(S)
        tried_BS = torch.tensor(scale * (whole_BS - prior_S) + similarity_SA @ p_A)
        return float(contrastive_loss(tried_BS, torch.tensor(targets()))) + 1e-3 * p_A @ kernel_AA @ p_A

    best = loss(1.0, np.zeros(S))
    rng = np.random.default_rng(9)
    assert all(loss(scale, np.zeros(S)) > best - 1e-9 for scale in (0.9, 0.99, 1.01, 1.1))
    assert all(loss(1.0, 0.01 * rng.normal(size=S)) > best for _ in range(20))
    assert np.ptp(prior_S) > 0.1


def test_a_share_of_the_prior_is_that_share() -> None:
    whole, half, none = (
        scores(fitted("synthesised", ridge=3.0, prior=share), regions(), vectors(C, 3)) for share in (1.0, 0.5, 1e-12)
    )
    assert np.allclose(half, (whole + none) / 2)


def test_a_cut_code_keeps_the_directions_that_matter_most() -> None:
    whole = scores(fitted("synthesised", ridge=3.0), regions(), vectors())
    errors = []
    for size in range(1, min(D, S) + 1):
        model = fitted("synthesised", ridge=3.0, largest_code=size)
        assert isinstance(model, CodeModel)
        assert model.code_size == size
        errors.append(float(np.abs(scores(model, regions(), vectors()) - whole).mean()))
    assert errors[-1] < 1e-10
    assert errors[0] > errors[len(errors) // 2] > errors[-1]


def test_the_label_map_gives_the_same_points_without_pytorch() -> None:
    model = fitted("synthesised", ridge=3.0, prior=1.0, unit_labels=True)
    assert isinstance(model, CodeModel)
    unit_CE = unit(vectors(C, 3))
    label_map = model.label_map()
    assert label_map is not None
    np.testing.assert_allclose(label_map.points(unit_CE), model.points(torch.tensor(unit_CE)).numpy(), atol=1e-5)
    again = LabelMap.from_bytes(label_map.to_bytes())
    np.testing.assert_allclose(again.points(unit_CE), label_map.points(unit_CE), atol=1e-6)
    half = LabelMap.from_bytes(label_map.to_bytes(half=True)).points(unit_CE)
    assert 0 < np.abs(half - label_map.points(unit_CE)).max() < 0.02


def test_a_seen_label_gets_nearly_its_own_classifier() -> None:
    x = regions().mean(axis=1) - regions().mean(axis=(0, 1))
    y_BS = targets()
    g_SD = unit((np.linalg.inv(x.T @ x + 3.0 * np.eye(D)) @ x.T @ (y_BS - y_BS.mean(axis=0))).T)
    found = scores(fitted("synthesised", kernel_ridge=1e-9, ridge=3.0), regions(), vectors())
    np.testing.assert_allclose(found, x @ g_SD.T, atol=1e-6)


def test_synthesised_scores_have_the_gradients_of_label_vectors() -> None:
    model = fitted("synthesised", ridge=3.0)
    inputs = torch.tensor(regions(seed=8)).requires_grad_(), torch.tensor(vectors(C, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: model(*x).scores_BC, inputs)


def test_the_regression_is_scikit_learns_ridge() -> None:
    rng = np.random.default_rng(4)
    x_ND, t_NE = 5 + rng.normal(size=(30, D)), rng.normal(size=(30, E))
    regression = RidgeRegression(D, E)
    for rows in (slice(0, 11), slice(11, 30)):
        regression.add(torch.tensor(x_ND[rows]), torch.tensor(t_NE[rows]))
    weight_DE, mean_D, mean_E = (tensor.numpy() for tensor in regression.solve(0.7))
    theirs = Ridge(alpha=0.7).fit(x_ND, t_NE)
    assert same(weight_DE.T, theirs.coef_)
    assert same(mean_E - mean_D @ weight_DE, theirs.intercept_)


def has_pairs() -> np.ndarray:
    """Which photos have a present and an absent label."""
    paired_B = (targets() > 0).any(axis=1) & (targets() < 0).any(axis=1)
    assert not paired_B[-2:].any()
    return paired_B


def directions_by_pairs(v_SE: np.ndarray, y_BS: np.ndarray, ridge: float) -> np.ndarray:
    """Least squares on every pair of a present and an absent label, each written down."""
    found = []
    for y in y_BS:
        differences = np.array([p - n for p in v_SE[y > 0] for n in v_SE[y < 0]])
        count = len(differences)
        gram = differences.T @ differences / count + ridge * np.eye(E)
        found.append(np.linalg.solve(gram, differences.sum(axis=0) / count))
    return np.array(found)


def test_fast0tags_directions_are_the_least_squares_over_all_pairs() -> None:
    paired_BS = targets()[has_pairs()]
    found = principal_directions(torch.tensor(vectors()), torch.tensor(paired_BS), 0.05)
    assert same(found.numpy(), directions_by_pairs(unit(vectors()), paired_BS, 0.05))


def test_linear_fast0tag_regresses_the_directions_of_the_photos_that_have_pairs() -> None:
    directions_BE = directions_by_pairs(unit(vectors()), targets()[has_pairs()], 0.05)
    theirs = Ridge(alpha=2.0).fit(regions()[has_pairs()].mean(axis=1), directions_BE)
    found = scores(fitted("fast0tag-linear", ridge=2.0, label_ridge=0.05), regions(seed=8), vectors(C, 3))
    assert same(found, theirs.predict(regions(seed=8).mean(axis=1)) @ unit(vectors(C, 3)).T)


def test_fast0tag_agrees_with_its_transcription() -> None:
    model = fitted("fast0tag")
    w = arrays(model)
    x = regions().mean(axis=1)
    for layer in (0, 2):
        x = np.maximum(x @ w[f"direction.{layer}.weight"].T + w[f"direction.{layer}.bias"], 0)
    x = x @ w["direction.4.weight"].T + w["direction.4.bias"]
    assert same(scores(model, regions(), vectors(C, 3)), x @ unit(vectors(C, 3)).T)


def test_training_free_scores_are_cosines() -> None:
    x = unit(regions("training-free").mean(axis=1))
    assert same(scores(fitted("training-free"), regions("training-free"), vectors(C, 3)), x @ unit(vectors(C, 3)).T)


def test_training_free_refuses_regions_and_vectors_of_two_spaces() -> None:
    with pytest.raises(LesaError, match=r"regions have 7 numbers and vectors 5: extract .* CLIP-like"):
        KINDS["training-free"](ModelConfig(kind="training-free", region_size=7, vector_size=5))


def test_logistic_and_wsabie_agree_with_their_transcriptions() -> None:
    x_BD = regions().mean(axis=1)
    w = arrays(fitted("logistic"))
    expected = x_BD @ w["classifier.weight"].T + w["classifier.bias"]
    assert same(scores(fitted("logistic"), regions(), vectors()), expected)
    w = arrays(fitted("wsabie"))
    expected = (x_BD @ w["photo_map.weight"].T) @ w["label_map.weight"].T
    assert same(scores(fitted("wsabie"), regions(), vectors()), expected)


@pytest.mark.parametrize("kind", POOLED)
def test_a_method_is_the_same_after_its_checkpoint(kind: str, tmp_path: Path) -> None:
    model = fitted(kind)
    save_tensors(tmp_path / "model.safetensors", model.state_dict(), {})
    tensors, _ = load_tensors(tmp_path / "model.safetensors")
    other = build_model(config_of(kind), torch.tensor(vectors(seed=9)), seed=1).double()
    other.load_state_dict(tensors)
    labels = vectors() if kind in SEEN_ONLY else vectors(C, 3)
    assert np.array_equal(scores(other.eval(), regions(kind), labels), scores(model, regions(kind), labels))


@pytest.mark.parametrize("kind", POOLED)
def test_a_method_refuses_sizes_that_are_not_its_own(kind: str) -> None:
    with pytest.raises(LesaError, match="label vectors: expected shape"):
        scores(fitted(kind), regions(kind), np.ones((C, E + 1)))


@pytest.mark.parametrize("kind", POOLED)
def test_the_score_of_a_label_does_not_depend_on_other_labels(kind: str) -> None:
    if kind in SEEN_ONLY:
        assert KINDS[kind].seen_only
        return
    model = fitted(kind)
    together = scores(model, regions(kind), vectors(C, 3))
    alone = [scores(model, regions(kind), vectors(C, 3)[c : c + 1]) for c in range(C)]
    assert same(together, np.hstack(alone))


RIDGES = {"ridge": 100.0, "label_ridge": 0.1}
TRAINED = {
    "conse": ({"kind": "conse"}, "logistic", 300),
    "eszsl": ({"kind": "eszsl", "settings": RIDGES}, "closed-form", 41),
    "fast0tag": ({"kind": "fast0tag", "settings": {"hidden": 64}}, "ranknet", 300),
    "fast0tag-linear": (
        {"kind": "fast0tag-linear", "settings": RIDGES},
        "closed-form",
        12,
    ),
    "logistic": ({"kind": "logistic"}, "logistic", 300),
    "synthesised": ({"kind": "synthesised", "settings": {"ridge": 100.0}}, "closed-form", 41),
    "warp": ({"kind": "logistic"}, "warp", 300),
    "wsabie": ({"kind": "wsabie", "settings": {"hidden": 64}}, "warp", 300),
}
"""Model, loss and steps: an epoch of the demo's photos has 41, and a closed form may stop before its end."""


def train_and_evaluate(data: Path, vectors: Path, folder: Path, **settings: object) -> Evaluation:
    """Train on the demo's photos, evaluate on the test photos; a constant must rank the labels worse."""
    places = {"dataset": str(data / "dataset"), "regions": str(data / "regions"), "vectors": [str(vectors)]}
    train(make_recipe({**places, **settings}), folder)
    evaluation = evaluate_run(open_run(folder))
    # A constant ranks all photos alike, so each label's average precision is the share of the photos that carry it.
    share = 100 * (evaluation.targets_NC > 0).mean()
    assert evaluation.reports["lesa"]["seen"].mean_average_precision > 2 * share
    return evaluation


@pytest.mark.parametrize("name", TRAINED)
def test_a_method_learns_in_the_loop_what_no_constant_knows(name: str, demo_data: Path, tmp_path: Path) -> None:
    model, loss, steps = TRAINED[name]
    evaluation = train_and_evaluate(
        demo_data,
        demo_data / "vectors.safetensors",
        tmp_path / "run",
        model={"front": False, **model},
        loss={"kind": loss},
        steps=steps,
        batch_size=64,
        optimiser={"kind": "adamw", "learning_rate": 3e-3, "weight_decay": 0.01, "adaptive": False},
    )
    assert ("ZSL" in evaluation.reports["lesa"]) == (model["kind"] not in SEEN_ONLY)


def test_training_free_passes_through_the_loop_where_regions_and_vectors_share_a_space(
    demo_data: Path, tmp_path: Path
) -> None:
    # The mean feature of a label's photos is a vector of the regions' own space.
    data, store = read_dataset(demo_data / "dataset"), RegionStore.open(demo_data / "regions")
    split = data.split("train", store.failed())
    present_NC = (split.targets.dense() > 0).astype(np.float32)
    sums_CD = present_NC.T @ store.read(store.index(split.photos)).mean(axis=1)
    sums_CD[present_NC.sum(axis=0) == 0] = 1
    write_table(tmp_path / "shared.safetensors", data.vocabulary.names, sums_CD)
    train_and_evaluate(
        demo_data,
        tmp_path / "shared.safetensors",
        tmp_path / "run",
        model={"front": False, "kind": "training-free"},
        loss={"kind": "closed-form"},
        epochs=1,
        optimiser={"kind": "adamw"},
    )


def test_a_closed_form_that_is_stopped_and_resumed_ends_in_the_same_weights(demo_data: Path, tmp_path: Path) -> None:
    data = demo_data / "dataset", demo_data / "regions", demo_data / "vectors.safetensors"
    recipe = make_recipe(
        {
            "dataset": str(data[0]),
            "regions": str(data[1]),
            "vectors": [str(data[2])],
            "model": {"kind": "eszsl", "front": False},
            "loss": {"kind": "closed-form"},
            "epochs": 1,
        }
    )

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            signal.raise_signal(signal.SIGTERM)

    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", progress=stop)
    stopped = train(recipe, tmp_path / "stopped")
    tensors, others = (load_tensors(run.checkpoint("last"))[0] for run in (whole, stopped))
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
