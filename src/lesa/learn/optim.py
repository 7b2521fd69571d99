"""The optimisers, TensorFlow's RMSProp among them, and the learning-rate rule of the published training."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from lesa.errors import LesaError


@dataclass(frozen=True)
class OptimiserConfig:
    """How the loss is minimised. The defaults are those of the authors' program.

    Raises:
        LesaError: a rate that no optimiser takes.
    """

    kind: Literal["rmsprop-tf", "adamw"] = "rmsprop-tf"
    """TensorFlow's RMSProp, or AdamW."""
    learning_rate: float = 1e-3
    """The learning rate at the start."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    adaptive: bool = True
    """Whether a falling validation average lowers the learning rate (docs/method.md)."""
    patience: int = 5
    """Evaluations without a change after the rate was lowered."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise LesaError(f"optimiser.learning_rate is {self.learning_rate}; expected a positive number")
        if self.weight_decay < 0 or self.patience < 0:
            raise LesaError("optimiser.weight_decay and optimiser.patience: expected at least 0")


def make_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of the model's parameters."""
    if config.kind == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return RMSpropTF(model.parameters(), lr=config.learning_rate)


class RMSpropTF(torch.optim.Optimizer):
    """RMSProp as TensorFlow 1 computes it (docs/method.md, Training).

        ms  = decay ms + (1 - decay) g^2             starts at one
        mom = momentum mom + lr g / sqrt(ms + eps)   eps inside the root, the learning rate inside the momentum
        w  -= mom

    `torch.optim.RMSprop` starts ms at zero, adds eps outside the root and multiplies by the learning rate last.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps})

    @overload
    def step(self, closure: None = ...) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["mean_square"] = torch.ones_like(weight)
            state["momentum"] = torch.zeros_like(weight)
        mean_square, momentum = state["mean_square"], state["momentum"]
        mean_square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        momentum.mul_(group["momentum"]).addcdiv_(gradient, (mean_square + group["eps"]).sqrt_(), value=group["lr"])
        weight.sub_(momentum)


@dataclass
class LearningRateRule:
    """A falling average of the validation metric lowers the learning rate (docs/method.md, Training).

    The average takes 0.3 of each new metric. When it falls the rate is multiplied by 0.8, but not below 1e-3 of its
    start, and the next `patience` evaluations change nothing. The average starts at the first metric.
    """

    rate: float
    """The learning rate now."""
    floor: float
    """The learning rate never falls below this."""
    patience: int = 5
    """Evaluations without a change after the rate was lowered."""
    average: float | None = None
    """The running average of the metric; None before the first."""
    waiting: int = 0
    """How many evaluations still pass before the rate may be lowered again."""

    def update(self, metric: float) -> float:
        """Take the metric of one evaluation (higher is better) and return the learning rate from now on."""
        previous = metric if self.average is None else self.average
        self.average = 0.7 * previous + 0.3 * metric
        if self.waiting > 0:
            self.waiting -= 1
        elif self.average < previous:
            self.rate = max(self.rate * 0.8, self.floor)
            self.waiting = self.patience
        return self.rate
