"""The method in float64 NumPy, written from its description alone, with explicit loops over labels and pairs.

Parameters are a mapping of the authors' variable names to arrays in the authors' layouts (biases are last rows).
Every function also takes complex numbers and is analytic in them wherever the method is differentiable (choices look at
real parts, norms do not conjugate). `gradients` uses that: the imaginary part of a loss at `x + i h` is `h` times its
derivative, exact to rounding, so no backward pass had to be derived by hand.
"""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np

Variables = dict[str, np.ndarray]

ATTENTION_1 = "attention_layer/w_att_1"  # D+1, D; or M, D+1, D where every attention has its own
ATTENTION_2 = "attention_layer/w_att_2"  # D+1, M
PROJECTION = "prediction_frac/W"  # D, E
KERNEL = "conv/conv/weights"  # 2, 2, D (in), D (out)
NORM = "conv/conv/batch_normalization/"
GAMMA, BETA, MEAN, VARIANCE = (NORM + name for name in ("gamma", "beta", "moving_mean", "moving_variance"))
LOG_TEMPERATURE = "log_temperature"  # the recipe `contrastive`, which is not the authors'
NOT_TRAINED = (MEAN, VARIANCE)

STATE_NAMES = {
    ATTENTION_1: "w1",
    ATTENTION_2: "w2",
    PROJECTION: "word_space.w",
    LOG_TEMPERATURE: "word_space.log_temperature",
    KERNEL: "front.convolution.weight",
    GAMMA: "front.normalisation.weight",
    BETA: "front.normalisation.bias",
    MEAN: "front.normalisation.running_mean",
    VARIANCE: "front.normalisation.running_var",
}
"""What `lesa.learn.model` calls the same numbers."""


def state(v: Mapping[str, np.ndarray]) -> Variables:
    """The variables (or their gradients) under the model's names and in PyTorch's layout of a convolution."""
    return {STATE_NAMES[name]: x.transpose(3, 2, 0, 1) if name == KERNEL else x for name, x in v.items()}


def random_variables(
    rng: np.random.Generator,
    D: int,
    E: int,
    M: int,
    *,
    front: bool = False,
    separate: bool = False,
    unit_codes: bool = False,
) -> Variables:
    """Numbers of a trained model's size, none at its special starting value."""
    v = {
        ATTENTION_1: rng.normal(size=(M, D + 1, D) if separate else (D + 1, D)) * (2 / D) ** 0.5,
        ATTENTION_2: rng.normal(size=(D + 1, M)) * (2 / D) ** 0.5,
        PROJECTION: rng.normal(size=(D, E)) * (2 / D) ** 0.5,
    }
    if front:
        v |= {
            KERNEL: rng.normal(size=(2, 2, D, D)) * (2 / (4 * D)) ** 0.5,
            GAMMA: rng.uniform(0.5, 1.5, D),
            BETA: rng.normal(size=D),
            MEAN: rng.normal(size=D),
            VARIANCE: rng.uniform(0.5, 2, D),
        }
    if unit_codes:
        v[LOG_TEMPERATURE] = np.array(np.log(3.0))
    return v


# ---- front


def convolution(regions_BRD: np.ndarray, kernel: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """2 x 2 convolution whose zero padding is one row below and one column to the right; one output at a time."""
    rows, columns = grid
    maps = regions_BRD.reshape(len(regions_BRD), rows, columns, -1)
    out = np.zeros((len(maps), rows, columns, kernel.shape[3]), np.result_type(maps, kernel))
    for i in range(rows):
        for j in range(columns):
            for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
                if i + di < rows and j + dj < columns:
                    out[:, i, j] += maps[:, i + di, j + dj] @ kernel[di, dj]
    return out.reshape(len(maps), rows * columns, -1)


def batch_moments(x_BRD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean_D = x_BRD.mean((0, 1))
    return mean_D, ((x_BRD - mean_D) ** 2).mean((0, 1))


def front(v: Mapping[str, np.ndarray], regions_BRD: np.ndarray, grid: tuple[int, int], training: bool) -> np.ndarray:
    x_BRD = convolution(regions_BRD, v[KERNEL], grid)
    mean_D, variance_D = batch_moments(x_BRD) if training else (v[MEAN], v[VARIANCE])
    x_BRD = (x_BRD - mean_D) / np.sqrt(variance_D + 1e-3) * v[GAMMA] + v[BETA]
    return np.where(x_BRD.real > 0, x_BRD, 0)


def moved_averages(v: Mapping[str, np.ndarray], regions_BRD: np.ndarray, grid: tuple[int, int]) -> Variables:
    """The running averages after one training batch; TensorFlow's fused kernel keeps the unbiased variance."""
    x_BRD = convolution(regions_BRD, v[KERNEL], grid)
    mean_D, variance_D = batch_moments(x_BRD)
    count = x_BRD.shape[0] * x_BRD.shape[1]
    return {
        MEAN: 0.99 * v[MEAN] + 0.01 * mean_D,
        VARIANCE: 0.99 * v[VARIANCE] + 0.01 * variance_D * count / (count - 1),
    }


# ---- attention and compatibility


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    exponentials = np.exp(x - x.real.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def normalised(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def largest(x: np.ndarray, axis: int) -> np.ndarray:
    index = np.expand_dims(x.real.argmax(axis), axis)
    return np.take_along_axis(x, index, axis).squeeze(axis)


def log_mean_exp(x: np.ndarray, axis: int) -> np.ndarray:
    shift = x.real.max(axis, keepdims=True)
    return np.log(np.exp(x - shift).mean(axis)) + shift.squeeze(axis)


def with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)


def attention_logits(v: Mapping[str, np.ndarray], regions_BRD: np.ndarray) -> np.ndarray:
    first, second = v[ATTENTION_1], v[ATTENTION_2]
    maps = []
    for m in range(second.shape[1]):
        own = first[m] if first.ndim == 3 else first
        maps.append(with_one(np.tanh(with_one(regions_BRD) @ own)) @ second[:, m])
    return np.stack(maps, axis=1)


def forward(
    v: Mapping[str, np.ndarray],
    regions_BRD: np.ndarray,
    vectors_CE: np.ndarray,
    *,
    grid: tuple[int, int] | None = None,
    training: bool = False,
    soft_selection: bool = False,
) -> SimpleNamespace:
    """Codes and scores; `grid` turns the front on; with a learned temperature the codes have that length."""
    f_BRD = regions_BRD if grid is None else front(v, regions_BRD, grid, training)
    unit_CE = normalised(vectors_CE)
    logits_BMR = attention_logits(v, f_BRD)
    attention_BMR = softmax(logits_BMR, axis=2)
    codes_BME = np.stack([a_MR @ f_RD for a_MR, f_RD in zip(attention_BMR, f_BRD, strict=True)]) @ v[PROJECTION]
    uniform_BE = f_BRD.mean(1) @ v[PROJECTION]
    if LOG_TEMPERATURE in v:
        temperature = np.exp(v[LOG_TEMPERATURE])
        codes_BME = temperature * normalised(codes_BME)
        uniform_BE = temperature * normalised(uniform_BE)
    by_attention_BMC = codes_BME @ unit_CE.T
    select = log_mean_exp if soft_selection else largest
    return SimpleNamespace(
        scores_BC=select(by_attention_BMC, 1),
        by_attention_BMC=by_attention_BMC,
        attention_BMR=attention_BMR,
        logits_BMR=logits_BMR,
        codes_BME=codes_BME,
        uniform_scores_BC=uniform_BE @ unit_CE.T,
    )


# ---- losses


def rank(scores_BC: np.ndarray, targets_BC: np.ndarray) -> complex:
    total = 0.0
    for s, y in zip(scores_BC, targets_BC, strict=True):
        violations = [
            1 + s[n] - s[p]
            for p in np.flatnonzero(y == 1)
            for n in np.flatnonzero(y == -1)
            if (1 + s[n] - s[p]).real > 0
        ]
        total += sum(violations) / (len(violations) + 1e-8)
    return total / len(scores_BC)


def relevance(scores_BC: np.ndarray, uniform_BC: np.ndarray, targets_BC: np.ndarray) -> complex:
    total = 0.0
    for b, c in np.ndindex(*targets_BC.shape):
        hinge = -targets_BC[b, c] * (scores_BC[b, c] - uniform_BC[b, c])
        total += hinge if hinge.real > 0 else 0.0
    return total


def diversity(maps_BMR: np.ndarray) -> complex:
    """Of the attention logits (the program) or of the attention itself (the paper's wording)."""
    total = 0.0
    for n_MR in normalised(maps_BMR):
        for i, j in np.ndindex(len(n_MR), len(n_MR)):
            if i != j:
                total += (n_MR[i] @ n_MR[j]) ** 2
    return np.sqrt(total)


def distribution(by_attention_BMC: np.ndarray, targets_BC: np.ndarray) -> complex:
    chosen_BMC = softmax(by_attention_BMC, axis=1)
    images, attentions, _ = chosen_BMC.shape
    total = 0.0
    for b, m in np.ndindex(images, attentions):
        total += sum(chosen_BMC[b, m, c] for c in np.flatnonzero(targets_BC[b] == 1)) ** 2
    return total / (images * attentions)


def lesa_terms(
    out: SimpleNamespace,
    targets_BC: np.ndarray,
    *,
    distribution_weight: float = 0.1,
    relevance_weight: float = 0.001,
    diversity_weight: float = 0.01,
    of_probabilities: bool = False,
) -> dict[str, complex]:
    terms = {
        "rank": rank(out.scores_BC, targets_BC),
        "distribution": distribution(out.by_attention_BMC, targets_BC),
        "relevance": relevance(out.scores_BC, out.uniform_scores_BC, targets_BC),
        "diversity": diversity(out.attention_BMR if of_probabilities else out.logits_BMR),
    }
    terms["total"] = (
        terms["rank"]
        + distribution_weight * terms["distribution"]
        + relevance_weight * terms["relevance"]
        + diversity_weight * terms["diversity"]
    )
    return terms


def contrastive(scores_BC: np.ndarray, targets_BC: np.ndarray) -> complex:
    """Cross-entropy of each present label against the annotated ones: mean in a photo, then over photos with one."""
    photos = []
    for s, y in zip(scores_BC, targets_BC, strict=True):
        annotated, present = np.flatnonzero(y != 0), np.flatnonzero(y == 1)
        if len(present):
            shift = s[annotated].real.max()
            everything = np.log(sum(np.exp(s[c] - shift) for c in annotated)) + shift
            photos.append(sum(everything - s[p] for p in present) / len(present))
    return sum(photos) / len(photos) if photos else 0.0


# ---- training


def gradients(loss: Callable[[Variables], complex], v: Variables, step: float = 1e-30) -> Variables:
    """Derivatives of a real loss by the complex step: one forward a number, exact to rounding."""
    found = {}
    for name, values in v.items():
        if name in NOT_TRAINED:
            continue
        found[name] = np.zeros_like(values)
        for index in np.ndindex(*values.shape):
            moved = values.astype(complex)
            moved[index] += 1j * step
            found[name][index] = np.imag(loss({**v, name: moved})) / step
    return found


class RMSProp:
    """TensorFlow's: the epsilon inside the root, the mean square from one, the learning rate in the momentum."""

    def __init__(self, lr: float = 1e-3, decay: float = 0.9, momentum: float = 0.9, eps: float = 1.0) -> None:
        self.lr, self.decay, self.momentum, self.eps = lr, decay, momentum, eps
        self.squares: Variables = {}
        self.momenta: Variables = {}

    def step(self, v: Variables, gradient: Variables) -> Variables:
        moved = dict(v)
        for name, g in gradient.items():
            square = self.decay * self.squares.get(name, np.ones_like(g)) + (1 - self.decay) * g * g
            buffer = self.momentum * self.momenta.get(name, np.zeros_like(g)) + self.lr * g / np.sqrt(square + self.eps)
            self.squares[name], self.momenta[name] = square, buffer
            moved[name] = v[name] - buffer
        return moved


def train(
    v: Variables,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    vectors_CE: np.ndarray,
    *,
    grid: tuple[int, int] | None = None,
    of_probabilities: bool = False,
) -> tuple[Variables, list[float]]:
    """One step per batch (regions, targets) with the paper's loss and optimiser; also the loss before each step."""
    optimiser, losses = RMSProp(), []
    for regions_BRD, targets_BC in batches:

        def loss(w: Variables, regions_BRD: np.ndarray = regions_BRD, targets_BC: np.ndarray = targets_BC) -> complex:
            out = forward(w, regions_BRD, vectors_CE, grid=grid, training=True)
            return lesa_terms(out, targets_BC, of_probabilities=of_probabilities)["total"]

        losses.append(float(np.real(loss(v))))
        averages = moved_averages(v, regions_BRD, grid) if grid else {}
        v = {**optimiser.step(v, gradients(loss, v)), **averages}
    return v, losses
