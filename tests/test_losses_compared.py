"""The losses of the compared methods: worked examples, a transcription pair by pair, and what they must cost."""

from collections.abc import Callable

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.metrics import log_loss
from torch import Tensor

from helpers import oracle
from lesa.learn.losses import logistic_loss, ranking_loss, ranknet_loss, warp_loss
from test_losses import Written
from test_model import difference

Loss = Callable[[Tensor, Tensor], Tensor]
# Photos with both kinds of label, with present ones only, with absent ones only; some labels are not annotated.
TARGETS_BC = np.array([[1, -1, 0, -1, 1, -1], [0, 1, 1, 0, 0, 0], [-1, 0, 0, -1, -1, -1]], np.int8)
targets_of_photos = hnp.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.integers(-1, 1))
seeds = st.integers(0, 2**32 - 1)


def ranknet(scores_BC: np.ndarray, targets_BC: np.ndarray) -> complex:
    total = 0j
    for s, y in zip(scores_BC, targets_BC, strict=True):
        pairs = [np.log(1 + np.exp(n - p)) for p in s[y > 0] for n in s[y < 0]]
        total += sum(pairs) / max(len(pairs), 1)
    return total / len(scores_BC)


def warp(scores_BC: np.ndarray, targets_BC: np.ndarray) -> complex:
    total = 0j
    for s, y in zip(scores_BC, targets_BC, strict=True):
        for p in s[y > 0]:
            violations = [1 + n - p for n in s[y < 0] if (1 + n - p).real > 0]
            if rank := len(violations):
                weight = sum(1 / j for j in range(1, rank + 1))
                total += weight * sum(violations) / rank / (y > 0).sum()
    return total / len(scores_BC)


def logistic(scores_BC: np.ndarray, targets_BC: np.ndarray) -> complex:
    terms = np.log(1 + np.exp(-targets_BC * scores_BC))
    return terms[targets_BC != 0].sum() / len(scores_BC)


TRANSCRIPTIONS = {ranknet_loss: ranknet, warp_loss: warp, logistic_loss: logistic}
LOSSES = pytest.mark.parametrize("loss", TRANSCRIPTIONS)


def scores_for(targets_BC: np.ndarray, seed: int) -> np.ndarray:
    return 2 * np.random.default_rng(seed).normal(size=targets_BC.shape)


@LOSSES
@settings(deadline=None, max_examples=60)
@given(targets_BC=targets_of_photos, seed=seeds)
def test_a_loss_and_its_gradient_agree_with_the_transcription(loss: Loss, targets_BC: np.ndarray, seed: int) -> None:
    scores_BC = scores_for(targets_BC, seed)
    given_scores = torch.tensor(scores_BC, requires_grad=True)
    found = loss(given_scores, torch.tensor(targets_BC))
    found.backward()
    expected = oracle.gradients(lambda v: TRANSCRIPTIONS[loss](v["s"], targets_BC), {"s": scores_BC})
    value = complex(TRANSCRIPTIONS[loss](scores_BC, targets_BC)).real
    assert found.item() == pytest.approx(value, rel=1e-12, abs=1e-15)
    assert difference(given_scores.grad, expected["s"]) < 1e-12


@LOSSES
@settings(deadline=None, max_examples=40)
@given(targets_BC=targets_of_photos, seed=seeds)
def test_a_label_that_is_not_annotated_takes_part_in_nothing(loss: Loss, targets_BC: np.ndarray, seed: int) -> None:
    scores_BC = scores_for(targets_BC, seed)
    others_BC = np.where(targets_BC == 0, 100 * np.sin(7 * scores_BC), scores_BC)
    values = [loss(torch.tensor(s), torch.tensor(targets_BC)) for s in (scores_BC, others_BC)]
    assert torch.equal(*values)


@pytest.mark.parametrize("loss", [ranknet_loss, warp_loss])
@settings(deadline=None, max_examples=40)
@given(targets_BC=targets_of_photos, seed=seeds, shift=st.floats(-50, 50))
def test_a_loss_of_pairs_sees_only_differences_of_scores(
    loss: Loss, targets_BC: np.ndarray, seed: int, shift: float
) -> None:
    scores_BC = scores_for(targets_BC, seed)
    values = [loss(torch.tensor(s), torch.tensor(targets_BC)) for s in (scores_BC, scores_BC + shift)]
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)


@LOSSES
def test_gradcheck_of_each_loss(loss: Loss) -> None:
    scores = torch.tensor(scores_for(TARGETS_BC, 4), requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: loss(s, torch.tensor(TARGETS_BC)), scores)


@LOSSES
@pytest.mark.parametrize("score", [-1e4, 1e4])
def test_large_scores_keep_a_loss_and_its_gradient_finite(loss: Loss, score: float) -> None:
    scores = torch.zeros(1, 3)
    scores[0, 0] = score
    value = loss(scores.requires_grad_(), torch.tensor([[1, -1, 0]]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(scores.grad).all()


def test_the_ranknet_loss_of_a_worked_example() -> None:
    # Two pairs with differences of 0 and -ln 3: (ln 2 + ln(4/3)) / 2 = ln(8/3) / 2; the second photo has no pair.
    scores = torch.tensor([[0.0, 0.0, -np.log(3)], [1.0, 2.0, 3.0]], dtype=torch.float64)
    loss = ranknet_loss(scores, torch.tensor([[1, -1, -1], [0, 1, 1]]))
    assert loss.item() == pytest.approx(np.log(8 / 3) / 4)


def test_the_warp_loss_of_a_worked_example() -> None:
    # Present at 2: absent labels at 2 and 1.5 violate by 1 and 0.5, that at -5 does not: rank 2, weight (1 + 1/2) / 2.
    # Present at 9: none violates. So 0.75 * 1.5 / 2 present labels.
    scores = torch.tensor([[2.0, 9.0, 2.0, 1.5, -5.0]], dtype=torch.float64)
    loss = warp_loss(scores, torch.tensor([[1, 1, -1, -1, -1]]))
    assert loss.item() == pytest.approx(0.5625)


def test_with_one_violation_a_present_label_warp_is_the_ranking_loss() -> None:
    scores = torch.tensor([[0.3, 0.0, -2.0], [0.1, 0.4, -3.0]], dtype=torch.float64)
    targets = torch.tensor([[1, -1, -1], [1, -1, -1]])
    assert warp_loss(scores, targets).item() == pytest.approx(ranking_loss(scores, targets).item(), rel=1e-7)


def test_the_logistic_loss_is_scikit_learns_log_loss_summed_over_a_photos_labels() -> None:
    scores_BC = scores_for(np.ones((4, 6)), 5)
    targets_BC = np.where(scores_for(np.ones((4, 6)), 6) > 0, 1, -1)
    expected = log_loss(targets_BC.ravel() > 0, 1 / (1 + np.exp(-scores_BC.ravel())), normalize=False) / 4
    assert logistic_loss(torch.tensor(scores_BC), torch.tensor(targets_BC)).item() == pytest.approx(expected)


@LOSSES
def test_the_losses_cost_the_present_labels_not_the_square_of_all(loss: Loss) -> None:
    def written(labels: int, present: int) -> Written:
        scores = torch.randn(32, labels, requires_grad=True)
        targets = torch.full((32, labels), -1)
        targets.scatter_(1, torch.rand(32, labels).topk(present).indices, 1)
        with Written() as count:
            loss(scores, targets).backward()
        return count

    base = written(7186, present=10)
    assert base.largest <= 32 * 10 * 7186
    assert base.total < 15 * 32 * 10 * 7186
    assert written(2 * 7186, present=10).total < 2.01 * base.total
    assert written(7186, present=20).total < 2.01 * base.total
