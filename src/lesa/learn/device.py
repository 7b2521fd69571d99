"""Where a network runs."""

import torch

from lesa.errors import LesaError


def refuse_absent_gpu(device: str) -> None:
    """Refuse the device `cuda` where PyTorch finds none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise LesaError("this PyTorch finds no GPU for the device 'cuda': leave it out, or install PyTorch for CUDA")
