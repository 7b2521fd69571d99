"""TensorFlow's RMSProp against the NumPy transcription and five steps of training; the learning-rate rule by hand."""

import copy
import itertools
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from helpers import oracle
from lesa.learn.losses import lesa_loss
from lesa.learn.optim import LearningRateRule, RMSpropTF
from test_model import B, C, D, E, R, config_of, difference, model_with, variables_of

TRAINED = {
    "published": {"front": True},
    "no front": {"front": False},
    "separate": {"front": True, "separate": True},
    "one attention": {"front": True, "attentions": 1},
}


def batches(steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Other photos each step; labels that are not annotated, and always a photo without one that is present."""
    rng = np.random.default_rng(5)
    targets = rng.integers(-1, 2, (steps, B, C))
    targets[:, -1] = np.minimum(targets[:, -1], 0)
    return [(rng.normal(size=(B, R, D)), y) for y in targets]


@pytest.mark.parametrize("diversity_of", ["logits", "probabilities"])
@pytest.mark.parametrize("variant", TRAINED.values(), ids=TRAINED)
def test_five_training_steps_agree_with_the_transcription(variant: dict[str, Any], diversity_of: str) -> None:
    config = config_of(variant)
    start, vectors_CE = variables_of(config), np.random.default_rng(6).normal(size=(C, E))
    model = model_with(config, start).train()
    optimiser, losses = RMSpropTF(model.parameters()), []
    for regions_BRD, targets_BC in batches(5):
        out = model(torch.tensor(regions_BRD), torch.tensor(vectors_CE))
        total = lesa_loss(out, torch.tensor(targets_BC), diversity_of=diversity_of).total
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())

    end, expected_losses = oracle.train(
        start,
        batches(5),
        vectors_CE,
        grid=config.grid if config.front else None,
        of_probabilities=diversity_of == "probabilities",
    )
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
    before, after, found = oracle.state(start), oracle.state(end), model.state_dict()
    for name, expected in after.items():
        # The way that was gone, not where it ends: the steps are small beside the weights.
        assert difference(found[name].numpy() - before[name], expected - before[name]) < 1e-9, name


settings_of_rmsprop = st.fixed_dictionaries(
    {
        "lr": st.floats(1e-4, 1.0),
        "decay": st.floats(0.0, 0.99),
        "momentum": st.floats(0.0, 0.99),
        "eps": st.floats(1e-6, 10.0),
    }
)


@given(settings=settings_of_rmsprop, seed=st.integers(0, 2**32 - 1))
def test_rmsprop_agrees_with_the_transcription_over_ten_steps(settings: dict[str, float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    expected, transcription = {"w": rng.normal(size=(3, 2))}, oracle.RMSProp(**settings)
    weight = torch.tensor(expected["w"], requires_grad=True)
    optimiser = RMSpropTF([weight], **settings)
    for gradient in rng.normal(scale=10 ** rng.uniform(-2, 2), size=(10, 3, 2)):
        weight.grad = torch.tensor(gradient)
        optimiser.step()
        expected = transcription.step(expected, {"w": gradient})
        np.testing.assert_allclose(weight.detach().numpy(), expected["w"], rtol=1e-9, atol=1e-12)


def test_the_first_steps_of_rmsprop_by_hand() -> None:
    weight = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimiser = RMSpropTF([weight], lr=0.1)
    weight.grad = torch.tensor([2.0], dtype=torch.float64)
    optimiser.step()  # ms = .9 + .1 * 4 = 1.3; mom = .1 * 2 / sqrt(2.3)
    first = 0.2 / 2.3**0.5
    assert weight.item() == pytest.approx(1 - first, rel=1e-14)
    weight.grad.zero_()
    optimiser.step()  # The gradient is zero: the momentum still moves the weight.
    assert weight.item() == pytest.approx(1 - first - 0.9 * first, rel=1e-14)


def test_rmsprop_is_not_pytorchs() -> None:
    ours, theirs = (torch.ones(3, requires_grad=True) for _ in range(2))
    optimisers = [RMSpropTF([ours]), torch.optim.RMSprop([theirs], lr=1e-3, alpha=0.9, momentum=0.9, eps=1.0)]
    for weight, optimiser in zip((ours, theirs), optimisers, strict=True):
        weight.grad = torch.full((3,), 0.5)
        optimiser.step()
    step_of_ours, step_of_theirs = (1 - w.detach()[0].item() for w in (ours, theirs))
    assert step_of_ours == pytest.approx(1e-3 * 0.5 / (0.9 + 0.1 * 0.25 + 1) ** 0.5, rel=1e-4)
    assert abs(step_of_ours / step_of_theirs - 1) > 0.1


def test_rmsprop_takes_the_changed_learning_rate_for_new_gradients_only() -> None:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = RMSpropTF([weight], lr=1.0)
    weight.grad = torch.ones(1, dtype=torch.float64)
    optimiser.step()
    first = -weight.item()
    optimiser.param_groups[0]["lr"] = 0.0
    optimiser.step()  # the learning rate is inside the momentum: what was gathered under the old one stays
    assert weight.item() == pytest.approx(-first - 0.9 * first, rel=1e-14)


def test_a_weight_without_a_gradient_stays_as_it_is() -> None:
    moving, still = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimiser = RMSpropTF([moving, still])
    moving.sum().backward()
    optimiser.step()
    assert torch.equal(still.detach(), torch.ones(2))
    assert (moving < 1).all()
    assert still not in optimiser.state


def test_rmsprop_evaluates_a_closure_once_and_returns_its_loss() -> None:
    weight = torch.ones(1, requires_grad=True)
    optimiser, losses = RMSpropTF([weight]), []

    def closure() -> float:
        optimiser.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        losses.append(loss.item())
        return loss.item()

    assert optimiser.step(closure) == 1.0
    assert losses == [1.0]
    assert weight.item() < 1


def test_rmsprop_goes_on_from_its_saved_state_to_the_bit() -> None:
    gradients = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))

    def steps(weight: torch.Tensor, optimiser: RMSpropTF, of: torch.Tensor) -> None:
        for gradient in of:
            weight.grad = gradient.clone()
            optimiser.step()

    through = torch.ones(4, requires_grad=True)
    optimiser = RMSpropTF([through], lr=0.01)
    steps(through, optimiser, gradients[:3])
    saved_weight, saved_state = through.detach().clone(), copy.deepcopy(optimiser.state_dict())
    steps(through, optimiser, gradients[3:])

    resumed = saved_weight.requires_grad_()
    again = RMSpropTF([resumed], lr=1.0, eps=3.0)
    again.load_state_dict(saved_state)
    steps(resumed, again, gradients[3:])
    assert torch.equal(resumed, through)
    assert again.param_groups[0]["lr"] == 0.01
    for name, x in optimiser.state[through].items():
        assert torch.equal(again.state[resumed][name], x)


def test_the_learning_rate_falls_with_the_average_then_waits() -> None:
    rule = LearningRateRule(rate=1.0, floor=1e-3, patience=2)
    #        metric  average after                   rate
    course = [
        (0.50, 0.5, 1.0),  # the first metric is the average
        (0.60, 0.53, 1.0),  # .7 * .5 + .3 * .6: risen
        (0.50, 0.521, 0.8),  # .7 * .53 + .3 * .5: fallen
        (0.10, 0.3947, 0.8),  # fallen, the first evaluation of patience
        (0.10, 0.30629, 0.8),  # fallen, the second
        (0.10, 0.244403, 0.64),  # fallen, patience is over
        (0.30, 0.2610821, 0.64),
        (0.30, 0.27275747, 0.64),
        (0.30, 0.280930229, 0.64),  # risen
        (0.28, 0.2806511603, 0.512),  # fallen
    ]
    for metric, average, rate in course:
        assert rule.update(metric) == pytest.approx(rate)
        assert rule.average == pytest.approx(average)


def test_the_learning_rate_of_the_paper_waits_five_evaluations() -> None:
    rule = LearningRateRule(rate=1e-3, floor=1e-6)
    rates = [rule.update(metric) for metric in np.linspace(1, 0, 15)]
    falls = [i for i in range(1, 15) if rates[i] < rates[i - 1]]
    assert falls == [1, 7, 13]
    assert rates[-1] == pytest.approx(1e-3 * 0.8**3)


@given(
    metrics=st.lists(st.floats(0, 1), max_size=60),
    patience=st.integers(0, 6),
    floor=st.floats(1e-3, 1.0),
)
def test_the_learning_rate_only_falls_a_fifth_at_a_time_and_not_below_its_floor(
    metrics: list[float], patience: int, floor: float
) -> None:
    rule = LearningRateRule(rate=1.0, floor=floor, patience=patience)
    rates = [1.0, *(rule.update(metric) for metric in metrics)]
    falls = [i for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    assert all(rates[i] == max(0.8 * rates[i - 1], floor) for i in falls)
    assert all(later - earlier > patience for earlier, later in itertools.pairwise(falls))


def test_the_rule_continues_from_its_saved_fields() -> None:
    metrics = np.random.default_rng(0).random(20)
    through, saved = LearningRateRule(1.0, 1e-3), LearningRateRule(1.0, 1e-3)
    for metric in metrics[:9]:
        through.update(metric)
        saved.update(metric)
    resumed = LearningRateRule(**vars(saved))
    assert [resumed.update(f) for f in metrics[9:]] == [through.update(f) for f in metrics[9:]]
