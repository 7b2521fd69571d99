"""The losses: their values and gradients against the NumPy transcription, and what they must cost."""

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import oracle
from lesa.learn.losses import (
    contrastive_loss,
    distribution_loss,
    diversity_loss,
    lesa_loss,
    ranking_loss,
    relevance_loss,
)
from lesa.learn.model import Output
from test_model import B, C, config_of, difference, inputs, model_with, oracle_settings, variables_of, variants

# Photos with both kinds of label, with present ones only, with absent ones only; some labels are not annotated.
TARGETS_BC = np.array([[1, -1, 0, -1, 1, -1], [0, 1, 1, 0, 0, 0], [-1, 0, 0, -1, -1, -1]], np.int8)
DIVERSITY_OF = pytest.mark.parametrize("diversity_of", ["logits", "probabilities"])

targets_of_photos = hnp.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.integers(-1, 1))
seeds = st.integers(0, 2**32 - 1)


def random_scores(targets_BC: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, uniform scores (both B, C) and compatibilities with three attentions (B, 3, C)."""
    rng = np.random.default_rng(seed)
    photos, labels = targets_BC.shape
    return tuple(2 * rng.normal(size=size) for size in ((photos, labels), (photos, labels), (photos, 3, labels)))


def pairs(targets_BC: np.ndarray, seed: int) -> dict[str, tuple[Callable[..., Tensor], Callable[..., Any], Any]]:
    """Each loss of scores and targets, its transcription, and scores for both."""
    scores_BC, uniform_BC, by_attention_BMC = random_scores(targets_BC, seed)
    return {
        "rank": (ranking_loss, oracle.rank, (scores_BC,)),
        "relevance": (relevance_loss, oracle.relevance, (scores_BC, uniform_BC)),
        "distribution": (distribution_loss, oracle.distribution, (by_attention_BMC,)),
        "contrastive": (contrastive_loss, oracle.contrastive, (scores_BC,)),
    }


LOSSES = pytest.mark.parametrize("name", pairs(TARGETS_BC, 0))


@LOSSES
@settings(deadline=None, max_examples=60)
@given(targets_BC=targets_of_photos, seed=seeds)
def test_a_loss_and_its_gradient_agree_with_the_transcription(name: str, targets_BC: np.ndarray, seed: int) -> None:
    loss, transcription, scores = pairs(targets_BC, seed)[name]
    given_scores = [torch.tensor(x, requires_grad=True) for x in scores]
    found = loss(*given_scores, torch.tensor(targets_BC))
    found.backward()
    variables = {str(i): x for i, x in enumerate(scores)}
    expected = oracle.gradients(lambda v: transcription(*v.values(), targets_BC), variables)
    assert float(found.detach()) == pytest.approx(float(np.real(transcription(*scores, targets_BC))), rel=1e-12)
    for x, gradient in zip(given_scores, expected.values(), strict=True):
        assert difference(x.grad, gradient) < 1e-12


@LOSSES
@settings(deadline=None, max_examples=40)
@given(targets_BC=targets_of_photos, seed=seeds)
def test_a_label_that_is_not_annotated_takes_part_in_nothing(name: str, targets_BC: np.ndarray, seed: int) -> None:
    loss, _, scores = pairs(targets_BC, seed)[name]
    unknown_BC = targets_BC == 0
    others = [np.where(unknown_BC[:, None] if x.ndim == 3 else unknown_BC, 100 * np.sin(7 * x), x) for x in scores]
    values = [loss(*map(torch.tensor, of), torch.tensor(targets_BC)) for of in (scores, others)]
    assert torch.equal(*values)


@settings(deadline=None, max_examples=40)
@given(targets_BC=targets_of_photos, seed=seeds, shift=st.floats(-50, 50))
def test_ranking_and_contrast_see_only_differences_of_scores(targets_BC: np.ndarray, seed: int, shift: float) -> None:
    scores_BC, _, _ = random_scores(targets_BC, seed)
    for loss in (ranking_loss, contrastive_loss):
        values = [loss(torch.tensor(s), torch.tensor(targets_BC)) for s in (scores_BC, scores_BC + shift)]
        torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)


def test_the_ranking_loss_of_a_worked_example() -> None:
    # Margins 1 + s[n] - s[p]: 1 + 0 - 0.5 = 0.5 and 1 - 2 - 0.5 < 0, so one pair of two violates; the mean is over
    # two photos, the second of which has no pair.
    scores = torch.tensor([[0.5, 0.0, -2.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    loss = ranking_loss(scores, torch.tensor([[1, -1, -1], [0, 1, 1]]))
    assert loss.item() == pytest.approx(0.25, rel=1e-7)


def test_the_relevance_loss_of_a_worked_example_is_a_sum_over_the_batch() -> None:
    # A present label below the uniform score by 2, an absent one above it by 3; the others are as they should be.
    scores, uniform = torch.tensor([[0.0, 5.0], [3.0, 1.0]]), torch.tensor([[2.0, 6.0], [0.0, 9.0]])
    assert relevance_loss(scores, uniform, torch.tensor([[1, -1], [-1, 0]])).item() == 5.0


def test_the_contrastive_loss_of_a_worked_example() -> None:
    # Equal scores of three annotated labels: -log(1/3) a present label, whatever the fourth scores.
    scores = torch.tensor([[1.0, 1.0, 1.0, 80.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    loss = contrastive_loss(scores, torch.tensor([[1, -1, 1, 0], [-1, -1, 0, 0]]))
    assert loss.item() == pytest.approx(np.log(3))


def terms_of(out: Output, **settings: Any) -> dict[str, float]:
    return {name: x.item() for name, x in lesa_loss(out, torch.tensor(TARGETS_BC), **settings)._asdict().items()}


@variants
@DIVERSITY_OF
def test_every_term_agrees_with_the_transcription(variant: dict[str, Any], diversity_of: str) -> None:
    config = config_of(variant)
    variables, (regions_BRD, vectors_CE) = variables_of(config), inputs()
    model = model_with(config, variables)
    found = terms_of(model(torch.tensor(regions_BRD), torch.tensor(vectors_CE)), diversity_of=diversity_of)
    expected = oracle.lesa_terms(
        oracle.forward(variables, regions_BRD, vectors_CE, training=True, **oracle_settings(config)),
        TARGETS_BC,
        of_probabilities=diversity_of == "probabilities",
    )
    for name, value in found.items():
        assert value == pytest.approx(float(np.real(expected[name])), rel=1e-12), name


def test_the_weights_of_the_terms_are_the_callers() -> None:
    config = config_of({"front": False})
    regions_BRD, vectors_CE = inputs()
    out = model_with(config, variables_of(config))(torch.tensor(regions_BRD), torch.tensor(vectors_CE))
    terms = terms_of(out, distribution=2.0, relevance=3.0, diversity=5.0)
    parts = terms["rank"] + 2 * terms["distribution"] + 3 * terms["relevance"] + 5 * terms["diversity"]
    assert terms["total"] == pytest.approx(parts, rel=1e-12)


def total_loss(out: Any, diversity_of: str) -> Tensor:
    return lesa_loss(out, torch.tensor(TARGETS_BC), diversity_of=diversity_of).total


@variants
@DIVERSITY_OF
def test_the_gradient_of_the_whole_agrees_with_the_transcription(variant: dict[str, Any], diversity_of: str) -> None:
    config = config_of(variant)
    variables, (regions_BRD, vectors_CE) = variables_of(config), inputs()
    model = model_with(config, variables)
    total_loss(model(torch.tensor(regions_BRD), torch.tensor(vectors_CE)), diversity_of).backward()

    def loss(v: oracle.Variables) -> complex:
        out = oracle.forward(v, regions_BRD, vectors_CE, training=True, **oracle_settings(config))
        return oracle.lesa_terms(out, TARGETS_BC, of_probabilities=diversity_of == "probabilities")["total"]

    expected = oracle.state(oracle.gradients(loss, variables))
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert difference(found[name], gradient) < 1e-9, name


def test_the_gradient_of_the_contrastive_recipe_agrees_with_the_transcription() -> None:
    config = config_of({"front": False, "unit_codes": True, "selection": "log-mean-exp"})
    variables, (regions_BRD, vectors_CE) = variables_of(config), inputs()
    model = model_with(config, variables)
    contrastive_loss(
        model(torch.tensor(regions_BRD), torch.tensor(vectors_CE)).scores_BC, torch.tensor(TARGETS_BC)
    ).backward()

    def loss(v: oracle.Variables) -> complex:
        out = oracle.forward(v, regions_BRD, vectors_CE, **oracle_settings(config))
        return oracle.contrastive(out.scores_BC, TARGETS_BC)

    expected = oracle.state(oracle.gradients(loss, variables))
    for name, parameter in model.named_parameters():
        assert difference(parameter.grad, expected[name]) < 1e-9, name


@variants
@DIVERSITY_OF
def test_gradcheck_of_the_model_and_its_loss(variant: dict[str, Any], diversity_of: str) -> None:
    config = config_of(variant)
    model = model_with(config, variables_of(config))
    names, parameters = zip(*model.named_parameters(), strict=True)
    regions_BRD, vectors_CE = inputs()

    def loss(regions: Tensor, vectors: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        out = functional_call(model, dict(zip(names, weights, strict=True)), (regions, vectors))
        return total_loss(out, diversity_of), contrastive_loss(out.scores_BC, torch.tensor(TARGETS_BC))

    given_numbers = [torch.tensor(x, requires_grad=True) for x in (regions_BRD, vectors_CE)]
    assert torch.autograd.gradcheck(loss, (*given_numbers, *parameters))


@LOSSES
def test_gradcheck_of_each_loss(name: str) -> None:
    loss, _, scores = pairs(TARGETS_BC, seed=4)[name]
    given_scores = [torch.tensor(x, requires_grad=True) for x in scores]
    assert torch.autograd.gradcheck(lambda *s: loss(*s, torch.tensor(TARGETS_BC)), given_scores)


def test_gradcheck_of_the_diversity_loss() -> None:
    logits_BMR = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(diversity_loss, logits_BMR.requires_grad_())


@pytest.mark.parametrize(
    "logits_BMR",
    [torch.ones(2, 1, 5), torch.zeros(2, 3, 5), torch.eye(3).expand(2, 3, 3).clone()],
    ids=["one attention", "attentions that are still zero", "attentions that share no region"],
)
def test_the_diversity_loss_without_overlap_is_zero_with_a_finite_gradient(logits_BMR: Tensor) -> None:
    loss = diversity_loss(logits_BMR.requires_grad_())
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits_BMR.grad).all()


@pytest.mark.parametrize("target", [-1, 0], ids=["absent", "not annotated"])
def test_a_batch_without_a_present_label_has_losses_and_finite_gradients(target: int) -> None:
    config = config_of({"front": True})
    model = model_with(config, variables_of(config))
    out = model(*map(torch.tensor, inputs()))
    targets_BC = torch.full((B, C), target)
    terms = lesa_loss(out, targets_BC)
    assert terms.rank.item() == terms.distribution.item() == contrastive_loss(out.scores_BC, targets_BC).item() == 0
    (terms.total + contrastive_loss(out.scores_BC, targets_BC)).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


class Written(TorchDispatchMode):
    """Counts the numbers that operations produce, forward and backward."""

    total = largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, Tensor)]
            self.total += sum(sizes)
            self.largest = max([self.largest, *sizes])
        return out


def written_by_the_losses(labels: int, present: int, photos: int = 32, attentions: int = 10) -> Written:
    torch.manual_seed(0)
    by_attention = torch.randn(photos, attentions, labels, requires_grad=True)
    logits = torch.randn(photos, attentions, 196, requires_grad=True)
    scores, uniform = by_attention.detach().amax(1).requires_grad_(), by_attention.detach()[:, 0].requires_grad_()
    out = Output(scores, torch.empty(0), by_attention, logits.softmax(2), logits, uniform)
    targets = torch.full((photos, labels), -1)
    targets.scatter_(1, torch.rand(photos, labels).topk(present).indices, 1)
    with Written() as written:
        (lesa_loss(out, targets).total + contrastive_loss(scores, targets)).backward()
    return written


def test_the_losses_cost_the_present_labels_not_the_square_of_all() -> None:
    # 32 photos with ten present labels each: K S = B M S numbers in each of about two dozen operations. The small case
    # comes first, so that a tensor of all pairs (50 times as many there) fails in little memory.
    for labels in (500, 7186):
        written = written_by_the_losses(labels, present=10)
        assert written.largest <= 32 * 10 * labels
        assert written.total < 30 * 32 * 10 * labels
    # Twice the labels or twice the present ones cost at most twice as much.
    assert written_by_the_losses(labels=2 * 7186, present=10).total < 2.01 * written.total
    assert written_by_the_losses(labels=7186, present=20).total < 2.01 * written.total


def test_the_count_of_written_numbers_sees_a_tensor_of_all_pairs() -> None:
    scores_BS = torch.randn(4, 50)
    with Written() as written:
        torch.relu(1 + scores_BS[:, :, None] - scores_BS[:, None, :])
    assert written.largest == 4 * 50 * 50
