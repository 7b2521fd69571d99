"""The recommended method: both parts against NumPy, each trained on its own, and one code for a bundle."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from lesa.label_map import LabelMap
from lesa.learn.baselines.synthesised import Synthesised
from lesa.learn.combined import Combined
from lesa.learn.losses import contrastive_loss
from lesa.learn.methods import build_model
from lesa.learn.model import KnownClasses, ModelConfig
from lesa.learn.recipe import make_recipe
from lesa.learn.run import load_tensors
from lesa.learn.train import Progress, train

B, R, D, E, S, C, M = 12, 4, 7, 5, 6, 3, 2
SETTINGS = {"ridge": 3.0, "prior": 1.0, "near_gamma": 1.5, "kernel_ridge": 0.2, "attention_share": 0.7}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


RNG = np.random.default_rng(0)
REGIONS = 1 + RNG.normal(size=(B, R, D))
SEEN = unit(RNG.normal(size=(S, E)))
OTHERS = unit(RNG.normal(size=(C, E)))
TARGETS = RNG.choice([1, -1, -1, 0], size=(B, S))


def solved(known: KnownClasses | None = None, **settings: object) -> Combined:
    """A new model in double precision whose synthesised part is solved."""
    config = ModelConfig(
        kind="combined",
        region_size=D,
        vector_size=E,
        attentions=M,
        front=False,
        unit_codes=True,
        selection="log-mean-exp",
        settings={**SETTINGS, **settings},
    )
    model = build_model(config, torch.tensor(SEEN), seed=0, known=known).double()
    assert isinstance(model, Combined)
    with torch.no_grad():
        model.accumulate(torch.tensor(REGIONS), torch.tensor(SEEN), torch.tensor(TARGETS))
        model.solve()
    return model.eval()


def near(vectors_CE: np.ndarray, gamma: float = 1.5) -> np.ndarray:
    """n, written out: interpolation of the seen labels' centred vectors."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-gamma * ((a[:, None] - b[None]) ** 2).sum(axis=2))

    return kernel(vectors_CE, SEEN) @ np.linalg.inv(kernel(SEEN, SEEN) + 0.2 * np.eye(S)) @ (SEEN - SEEN.mean(axis=0))


def attention_scores(model: Combined, points_CE: np.ndarray) -> np.ndarray:
    """The log of the mean over attentions of exp(code . point), written out."""
    w = {name: tensor.numpy() for name, tensor in model.attention.state_dict().items()}
    hidden = np.tanh(REGIONS @ w["w1"][:-1] + w["w1"][-1])
    logits_BRM = hidden @ w["w2"][:-1] + w["w2"][-1]
    alpha_BRM = np.exp(logits_BRM) / np.exp(logits_BRM).sum(axis=1, keepdims=True)
    codes_BME = unit(np.einsum("brm,brd->bmd", alpha_BRM, REGIONS) @ w["word_space.w"])
    codes_BME = codes_BME * np.exp(w["word_space.log_temperature"])
    return np.log(np.exp(np.einsum("bme,ce->bmc", codes_BME, points_CE)).mean(axis=1))


def test_its_scores_are_the_synthesised_ones_and_a_share_of_the_attentions() -> None:
    model = solved()
    vectors_CE = np.concatenate([SEEN, OTHERS])
    with torch.no_grad():
        found = model(torch.tensor(REGIONS), torch.tensor(3 * vectors_CE)).scores_BC.numpy()
        base = Synthesised.points(model, torch.tensor(vectors_CE)).numpy()
        codes_BP = Synthesised.encode(model, torch.tensor(REGIONS)).codes_BME[:, 0].numpy()
    expected = codes_BP @ base.T + attention_scores(model, 0.7 * near(vectors_CE))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_far_from_the_seen_labels_only_the_synthesised_score_remains() -> None:
    model, alone = solved(near_gamma=200.0), solved(near_gamma=200.0, attention_share=1e-9)
    with torch.no_grad():
        far, at = (
            [m(torch.tensor(REGIONS), torch.tensor(vectors)).scores_BC for m in (model, alone)]
            for vectors in (OTHERS, SEEN)
        )
    torch.testing.assert_close(*far, atol=1e-6, rtol=0)
    assert (at[0] - at[1]).abs().max() > 0.1


def test_a_step_trains_the_attentions_alone_on_their_own_scores() -> None:
    model = solved().train()
    scores_BS = model(torch.tensor(REGIONS), torch.tensor(SEEN)).scores_BC
    np.testing.assert_allclose(scores_BS.detach().numpy(), attention_scores(model, near(SEEN)), rtol=1e-9)
    contrastive_loss(scores_BS, torch.tensor(TARGETS)).backward()  # type: ignore[no-untyped-call]
    moved = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert moved == {f"attention.{name}" for name, _ in model.attention.named_parameters()}


def test_classes_of_the_backbone_have_no_part_in_the_attentions() -> None:
    rows_KD, vectors_KE = RNG.normal(size=(4, D)), unit(RNG.normal(size=(4, E)))
    model = solved(KnownClasses(torch.tensor(vectors_KE), torch.tensor(rows_KD)), classes=True)
    points_CE = model.points(torch.tensor(OTHERS))[:, -E:].numpy()
    np.testing.assert_allclose(points_CE, 0.7 * near(OTHERS), rtol=1e-9)


def test_the_label_map_gives_the_same_points_without_pytorch() -> None:
    model = solved(unit_labels=True)
    expected = model.points(torch.tensor(OTHERS)).numpy()
    label_map = model.label_map()
    assert label_map.code_size == model.code_size == expected.shape[1]
    for found in label_map, LabelMap.from_bytes(label_map.to_bytes()):
        np.testing.assert_allclose(found.points(OTHERS.astype(np.float32)), expected, atol=1e-5)


def test_a_region_counts_as_much_as_in_the_mean_regions_code() -> None:
    model = solved()
    with torch.no_grad():
        encoded = model.encode(torch.tensor(REGIONS))
        points_BRP = model.region_points(encoded.regions_BRD)
    mean_BP, uniform_BP = points_BRP.mean(dim=1), encoded.uniform_BE.clone()
    # A prior has no place in the photo.
    uniform_BP[:, Synthesised.code_size.fget(model) - 1] = 0  # type: ignore[attr-defined]
    torch.testing.assert_close(mean_BP, uniform_BP)


@pytest.mark.parametrize("cut", [5, 12, 50])
def test_a_run_that_is_stopped_and_resumed_ends_in_the_same_weights(demo_data: Path, tmp_path: Path, cut: int) -> None:
    places = {"dataset": str(demo_data / "dataset"), "regions": str(demo_data / "regions")}
    vectors = [str(demo_data / "vectors.safetensors")]
    recipe = make_recipe({"recipe": "best", **places, "vectors": vectors, "steps": 60, "batch_size": 64})

    def stop(progress: Progress) -> None:
        if progress.step == cut:
            signal.raise_signal(signal.SIGTERM)

    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", progress=stop)
    stopped = train(recipe, tmp_path / "stopped")
    tensors, others = (load_tensors(run.checkpoint("last"))[0] for run in (whole, stopped))
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert tensors["model.word_space.w"].any()
