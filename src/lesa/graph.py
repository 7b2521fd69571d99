"""A bundle's graph on onnxruntime: pixels -> codes, attentions, regions."""

from collections.abc import Callable

from lesa.bundle import Bundle
from lesa.codes import Floats
from lesa.errors import LesaError

Run = Callable[[Floats], tuple[Floats, Floats, Floats]]
"""Runs a bundle's graph."""


def open_graph(bundle: Bundle) -> Run:
    """Return a function from pixels (B, 3, H, W) to codes (B, M, E), attention (B, M, R), regions (B, R, E).

    Raises:
        LesaError: the graph cannot be opened, or its shapes are not the manifest's.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    # Threads that wait for the next batch must not spin: photos are decoded on the same cores.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(bundle.graph, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's exceptions share no public base class.
        raise LesaError(f"the graph of {bundle.path} cannot be opened: {error}") from None
    about, (rows, columns) = bundle.about, bundle.about.grid
    side = about.preprocessing.size
    expected = {
        "pixels": [3, side, side],
        "codes": [about.attentions, about.vector_size],
        "attention": [about.attentions, rows * columns],
        "regions": [rows * columns, about.vector_size],
    }
    found = {each.name: each.shape[1:] for each in [*session.get_inputs(), *session.get_outputs()]}
    if found != expected:
        raise LesaError(f"the graph of {bundle.path} has the shapes {found}, the manifest says {expected}")

    def run(pixels: Floats) -> tuple[Floats, Floats, Floats]:
        codes_BME, attention_BMR, regions_BRE = session.run(["codes", "attention", "regions"], {"pixels": pixels})
        return codes_BME, attention_BMR, regions_BRE

    return run
