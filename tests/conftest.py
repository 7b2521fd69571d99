"""Fixtures that several test files use."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

# The tensors here are small: a second thread costs more than it gives, above all on a busy machine. Before PyTorch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from lesa.learn.datasets.demo import unpack_demo

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos, weights and word vectors; tests that need it skip where it is absent."""
    if not (SHARED / "data" / "flickr8k").is_dir():
        pytest.skip("the shared photos, weights and vectors are not on this machine (../shared)")
    return SHARED


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded region codes of real photos, unpacked: `dataset/`, `regions/`, `vectors.safetensors`."""
    folder = tmp_path_factory.mktemp("demo-data")
    unpack_demo(folder)
    return folder


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small collection with its bundle `small.lesa` and its index `photos.index`: leave what is in it as it was."""
    from helpers.small_server import make_small_bundle

    folder = tmp_path_factory.mktemp("bundled")
    make_small_bundle(folder)
    return folder


@pytest.fixture
def lesa(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line as the shell does, in this process, and return its exit code."""
    from lesa.cli.main import main

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["lesa", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    return run
