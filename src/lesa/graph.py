"""A bundle's graph on onnxruntime: pixels -> codes, attentions, regions."""

from collections.abc import Callable
from typing import Any

from lesa.bundle import Bundle
from lesa.codes import Floats
from lesa.errors import LesaError

RunGraph = Callable[[Floats], tuple[Floats, Floats, Floats]]
"""Pixels (B, 3, H, W) -> codes (B, M, E), attention (B, M, R), regions (B, R, E)."""


def open_graph(bundle: Bundle) -> RunGraph:
    """Return a function from pixels (B, 3, H, W) to codes (B, M, E), attention (B, M, R), regions (B, R, E).

    Raises:
        LesaError: the graph cannot be opened, or its shapes differ from the manifest's.
    """
    # Idle threads must not wait busily: photos are decoded on the same cores.
    session = open_session(bundle.graph, f"the graph of {bundle.path}", spinning=False)
    manifest, (rows, columns) = bundle.manifest, bundle.manifest.grid
    side = manifest.preprocessing.size
    expected = {
        "pixels": [3, side, side],
        "codes": [manifest.attentions, manifest.code_size],
        "attention": [manifest.attentions, rows * columns],
        "regions": [rows * columns, manifest.code_size],
    }
    shapes = {each.name: each.shape[1:] for each in [*session.get_inputs(), *session.get_outputs()]}
    if shapes != expected:
        raise LesaError(f"the graph of {bundle.path} has the shapes {shapes}, the manifest says {expected}")

    def run(pixels: Floats) -> tuple[Floats, Floats, Floats]:
        codes_BME, attention_BMR, regions_BRE = session.run(["codes", "attention", "regions"], {"pixels": pixels})
        return codes_BME, attention_BMR, regions_BRE

    return run


def open_session(graph: bytes | str, name: str, *, threads: int = 0, spinning: bool = True) -> Any:
    """Open an ONNX graph on onnxruntime, on the CPU.

    Args:
        graph: the graph's bytes, or its path.
        name: its name in messages.
        threads: number of threads of one operator; 0 for the number of cores.
        spinning: whether threads wait busily for the next batch.

    Raises:
        LesaError: the graph is damaged.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    try:
        return onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's exceptions share no public base class.
        raise LesaError(f"{name} cannot be opened: {error}") from None
