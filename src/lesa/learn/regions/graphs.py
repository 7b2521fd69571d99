"""How a backbone runs: on a CPU as an ONNX graph, which is exported once, checked and cached; on a GPU in PyTorch."""

import hashlib
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lesa.errors import LesaError
from lesa.files import replacing
from lesa.graph import open_session
from lesa.images import Preprocessing
from lesa.learn.regions.backbone import Backbone

RunBackbone = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Pixels (B, 3, H, W) -> regions (B, R, D)."""

TOLERANCE = 1e-4
"""Greatest difference between graph and PyTorch, as a share of the range of the values."""
LARGE = 256
"""Only weights with at least this many numbers are stored in 16 bits."""


def run_on(backbone: Backbone, device: str = "cpu") -> RunBackbone:
    """Return a function from pixels (B, 3, H, W; float32) to regions (B, R, D; float32).

    Args:
        backbone: the backbone to run.
        device: `cpu` (onnxruntime) or a device of PyTorch such as `cuda`.

    Raises:
        LesaError: the device does not exist, or the graph cannot be exported or differs from PyTorch.
    """
    if device == "cpu":
        path = graph_path(backbone)
        if not path.exists():
            with replacing(path) as temporary:
                _export_graph(backbone, temporary)
                check_graph(backbone, temporary)
        return _open_graph(path)
    try:
        module = backbone.module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise LesaError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return _on_pytorch(module, device)


def _on_pytorch(module: torch.nn.Module, device: str) -> RunBackbone:
    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        # Full single precision in convolutions, so that features are equal to those of a CPU.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            regions_BRD = module(torch.from_numpy(pixels).to(device))
        result: NDArray[np.float32] = regions_BRD.float().cpu().numpy()
        return result

    return run


def graph_path(backbone: Backbone) -> Path:
    """Return the path of the backbone's cached graph, below the folder `LESA_CACHE` or ~/.cache/lesa."""
    import onnxruntime

    facts = {
        "weights": backbone.fingerprint(),
        "spec": backbone.spec,
        "options": backbone.options,
        "grid": backbone.grid,
        "pixels": backbone.preprocessing.size,
        "versions": [torch.__version__, onnxruntime.__version__],
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    cache = Path(os.environ.get("LESA_CACHE") or Path.home() / ".cache" / "lesa")
    return cache / "graphs" / f"{key[:32]}.onnx"


def _export_graph(backbone: Backbone, path: Path) -> None:
    """Write the backbone as an ONNX graph for batches of any size.

    Raises:
        LesaError: PyTorch cannot export it.
    """
    try:
        export_onnx(backbone.module, backbone.preprocessing, ["regions"], path)
    except LesaError as error:
        raise LesaError(f"{backbone.spec} cannot be exported as a graph ({error}): use a GPU") from None


def export_onnx(module: nn.Module, preprocessing: Preprocessing, outputs: Sequence[str], path: Path) -> None:
    """Write a module as an ONNX graph from `pixels` (B, 3, H, W) to the named outputs, for batches of any size.

    Raises:
        LesaError: PyTorch cannot export it; the message is PyTorch's reason.
    """
    # A batch of two: PyTorch would treat a size of one as fixed.
    example = torch.from_numpy(random_pixels(preprocessing, 2))
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                input_names=["pixels"],
                output_names=list(outputs),
                verbose=False,
            )
            assert program is not None
            program.save(path, external_data=False)
        except (torch.onnx.OnnxExporterError, ValueError) as error:
            raise LesaError(str(error).strip().splitlines()[0]) from None


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings about deprecated functions and about torchvision, which is not installed."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            yield
    finally:
        registration.setLevel(level)


def halved(graph: bytes) -> bytes:
    """Return a graph that stores its weights in 16 bits and computes in 32 bits: it has half the size.

    It is not slower: onnxruntime casts constants once, when it opens a graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(graph)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= LARGE:
            name, values = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    content: bytes = model.SerializeToString()
    return content


def check_graph(backbone: Backbone, path: Path) -> None:
    """Compare the graph with PyTorch on random pixels.

    Raises:
        LesaError: they differ by more than 1e-4 of the range of the values.
    """
    pixels = random_pixels(backbone.preprocessing, 3)
    with torch.inference_mode():
        expected_BRD = backbone.module(torch.from_numpy(pixels)).numpy()
    difference = float(np.abs(_open_graph(path)(pixels) - expected_BRD).max() / np.ptp(expected_BRD))
    if not difference < TOLERANCE:
        raise LesaError(
            f"the graph of {backbone.spec} differs from PyTorch by {difference:.1e} of the range, more than "
            f"{TOLERANCE:.0e}: use a GPU, or another version of torch or onnxruntime"
        )


def random_pixels(preprocessing: Preprocessing, photos: int) -> NDArray[np.float32]:
    """Return noise in the range of real photos: (B, 3, H, W)."""
    side = preprocessing.size
    noise = np.random.default_rng(0).uniform(0, 255 * preprocessing.scale, (photos, side, side, 3))
    pixels = (noise - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)


def _open_graph(path: Path) -> RunBackbone:
    """Return a function that runs an exported graph, with as many threads as PyTorch uses."""
    try:
        session = open_session(str(path), f"graph {path}", threads=torch.get_num_threads())
    except LesaError as error:
        raise LesaError(f"{error}; delete it, then it is made again") from None

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        regions_BRD: NDArray[np.float32] = session.run(None, {"pixels": pixels})[0]
        return regions_BRD

    return run
