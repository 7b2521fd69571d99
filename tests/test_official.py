"""The authors' variables, as TensorFlow stored them, in our model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lesa.errors import LesaError
from lesa.learn.tensorflow.authors import model_from_variables
from lesa.learn.tensorflow.checkpoint import read_checkpoint

FOLDER = Path(__file__).parent / "data" / "tensorflow"
FRONT = "conv/conv"
Variables = dict[str, np.ndarray]


@pytest.fixture
def authors() -> Variables:
    return read_checkpoint(FOLDER / "lesa")


def test_the_model_gives_the_scores_that_tensorflow_computed(authors: Variables) -> None:
    model, stored = model_from_variables(authors), np.load(FOLDER / "lesa.npz", allow_pickle=False)
    with torch.no_grad():
        out = model(torch.tensor(stored["given/regions"]), torch.tensor(stored["given/vectors"]))
    assert np.ptp(stored["given/scores"]) > 1
    np.testing.assert_allclose(out.scores_BC.numpy(), stored["given/scores"], rtol=1e-5, atol=1e-5)


def test_names_may_end_in_the_output_number(authors: Variables) -> None:
    model = model_from_variables({f"{name}:0": array for name, array in authors.items()})
    for name, value in model_from_variables(authors).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_without_variables_of_the_front_the_front_is_off(authors: Variables) -> None:
    model = model_from_variables({name: array for name, array in authors.items() if not name.startswith(FRONT)})
    assert model.front is None
    assert (model.config.region_size, model.config.attentions, model.config.vector_size) == (6, 3, 5)


@pytest.mark.parametrize("name", ["attention_layer/w_att_2", "prediction_frac/W", f"{FRONT}/weights"])
def test_a_missing_variable_is_named(authors: Variables, name: str) -> None:
    del authors[name]
    with pytest.raises(LesaError, match=f"variable {name} is missing, expected with shape"):
        model_from_variables(authors)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("attention_layer/w_att_1", (6, 6), "(7, 6)"),
        ("attention_layer/w_att_1", (3, 7, 6), "(D+1, D)"),
        ("attention_layer/w_att_2", (6, 3), "(7, M)"),
        ("prediction_frac/W", (5, 6), "(6, E)"),
        (f"{FRONT}/weights", (3, 3, 6, 6), "(2, 2, 6, 6)"),
        (f"{FRONT}/batch_normalization/moving_variance", (5,), "(6)"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(authors: Variables, name: str, shape: tuple[int], wanted: str) -> None:
    authors[name] = np.zeros(shape, np.float32)
    with pytest.raises(LesaError) as caught:
        model_from_variables(authors)
    assert str(caught.value) == f"variable {name} has shape {shape}, expected {wanted}"
