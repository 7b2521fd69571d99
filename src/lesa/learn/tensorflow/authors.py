"""The variables of the authors' program -> the model."""

from collections.abc import Mapping

import numpy as np
import torch

from lesa.errors import LesaError, did_you_mean
from lesa.learn.model import ModelConfig, SharedMultiAttention
from lesa.learn.tensorflow.checkpoint import Array


def model_from_variables(variables: Mapping[str, Array]) -> SharedMultiAttention:
    """Build the model that the authors' program stored, in evaluation mode and single precision.

    The sizes D, M and E follow from the shapes; the front is on if there is a variable `conv/conv/...`.
    A `:0` at the end of a name and variables of other names (optimiser slots, global_step) are ignored.

    Args:
        variables: `attention_layer/w_att_1` (D+1, D) and `attention_layer/w_att_2` (D+1, M), whose last rows are the
            biases; `prediction_frac/W` (D, E); with the front `conv/conv/weights` (2, 2, D, D; row, column, in, out)
            and `conv/conv/batch_normalization/{gamma,beta,moving_mean,moving_variance}` (D,).

    Raises:
        LesaError: a variable is missing or has another shape; the message names it and the expected shape.
    """
    variables = {name.removesuffix(":0"): array for name, array in variables.items()}
    front = any(name.startswith("conv/conv/") for name in variables)
    D = _take(variables, "attention_layer/w_att_1", "D+1", "D").shape[1]
    state = {
        "w1": _take(variables, "attention_layer/w_att_1", D + 1, D),
        "w2": _take(variables, "attention_layer/w_att_2", D + 1, "M"),
        "word_space.w": _take(variables, "prediction_frac/W", D, "E"),
    }
    M, E = state["w2"].shape[1], state["word_space.w"].shape[1]
    model = SharedMultiAttention(ModelConfig(region_size=D, vector_size=E, attentions=M, front=front))
    if front:
        state |= _front_state(variables, D)
    model.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return model.eval()


def _front_state(variables: Mapping[str, Array], D: int) -> dict[str, Array]:
    normalisation = "conv/conv/batch_normalization"
    return {
        "front.convolution.weight": _take(variables, "conv/conv/weights", 2, 2, D, D).transpose(3, 2, 0, 1),
        "front.normalisation.weight": _take(variables, f"{normalisation}/gamma", D),
        "front.normalisation.bias": _take(variables, f"{normalisation}/beta", D),
        "front.normalisation.running_mean": _take(variables, f"{normalisation}/moving_mean", D),
        "front.normalisation.running_var": _take(variables, f"{normalisation}/moving_variance", D),
        # PyTorch counts the batches, which TensorFlow does not; with a fixed momentum nothing depends on it.
        "front.normalisation.num_batches_tracked": np.array(0),
    }


def _take(variables: Mapping[str, Array], name: str, *expected: int | str) -> Array:
    """Return a variable whose shape is as expected; a letter stands for any size."""
    shape = f"({', '.join(map(str, expected))})"
    if name not in variables:
        raise LesaError(f"variable {name} is missing, expected with shape {shape}; {did_you_mean(name, variables)}")
    array = np.asarray(variables[name], dtype=np.float32)
    fits = (isinstance(want, str) or want == size for want, size in zip(expected, array.shape, strict=False))
    if array.ndim != len(expected) or not all(fits):
        raise LesaError(f"variable {name} has shape {array.shape}, expected {shape}")
    return array
