"""Checkpoints that TensorFlow wrote (tools/make_tensorflow_checkpoints.py), read without it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesa.errors import LesaError
from lesa.learn import official
from lesa.learn.official import crc32c, masked_crc32c, model_from_variables, read_checkpoint

FOLDER = Path(__file__).parent / "data" / "tensorflow"
FRONT = "conv/conv"
Variables = dict[str, np.ndarray]


def expected(name: str) -> Variables:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def authors() -> Variables:
    return read_checkpoint(FOLDER / "lesa")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The prefix of a checkpoint that a test may spoil."""
    for file in FOLDER.glob("lesa.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "lesa"


@pytest.mark.parametrize("name", ["lesa", "vgg_19", "types", "objects"])
def test_arrays_are_bit_for_bit_what_tensorflow_stored(name: str) -> None:
    arrays = read_checkpoint(FOLDER / name)
    stored = {key: array for key, array in expected(name).items() if not key.startswith("given/")}
    assert list(arrays) == sorted(stored)
    for key, array in arrays.items():
        assert (array.dtype, array.shape) == (stored[key].dtype, stored[key].shape), key
        assert array.tobytes() == stored[key].tobytes(), key


def test_the_types_checkpoint_has_several_shards_and_a_string() -> None:
    assert len(list(FOLDER.glob("types.data-*-of-00003"))) == 3
    assert b"text" in (FOLDER / "types.index").read_bytes()
    assert "text" not in read_checkpoint(FOLDER / "types")


def test_an_index_of_several_blocks_is_read_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(FOLDER / "blocks.zip") as archive:
        archive.extractall(tmp_path)
    arrays = read_checkpoint(tmp_path / "blocks")
    assert [float(array) for array in arrays.values()] == list(range(900))
    assert list(arrays)[301] == "b" * 400 + "/0001/" + "b" * 700


def test_tensorflow_is_not_imported() -> None:
    code = "import sys, lesa.learn.official; sys.exit(any(name.startswith('tensorflow') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_model_gives_the_scores_that_tensorflow_computed(authors: Variables) -> None:
    model, stored = model_from_variables(authors), expected("lesa")
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


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("partitioned", "variable parts is partitioned"),
        ("version_1.ckpt", "V1 checkpoint.*write it as V2"),
        ("nowhere", "there is no checkpoint .*nowhere: expected .*nowhere.index"),
        ("lesa.index", "give the path without .index"),
        ("lesa.data-00000-of-00001", "give the path without .data-00000-of-00001"),
    ],
)
def test_what_is_not_read_is_refused_with_what_to_do(name: str, says: str) -> None:
    with pytest.raises(LesaError, match=says):
        read_checkpoint(FOLDER / name)


def test_a_missing_shard_is_named(copied: Path) -> None:
    Path(f"{copied}.data-00000-of-00001").unlink()
    with pytest.raises(LesaError, match=r"lesa\.data-00000-of-00001 is missing"):
        read_checkpoint(copied)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_cut_shard_is_named(copied: Path, kept: int) -> None:
    shard = Path(f"{copied}.data-00000-of-00001")
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(LesaError, match=r"lesa\.data-00000-of-00001 is cut"):
        read_checkpoint(copied)


def test_a_changed_bit_of_a_shard_is_found(copied: Path) -> None:
    shard = Path(f"{copied}.data-00000-of-00001")
    content = bytearray(shard.read_bytes())
    content[1234] ^= 1
    shard.write_bytes(content)
    with pytest.raises(LesaError, match=r"lesa\.data-00000-of-00001 is damaged: the checksum of variable"):
        read_checkpoint(copied)


@pytest.mark.parametrize("kept", [0, 20, 48, 400, -1])
def test_a_cut_index_is_named(copied: Path, kept: int) -> None:
    index = Path(f"{copied}.index")
    index.write_bytes(index.read_bytes()[:kept])
    with pytest.raises(LesaError, match=r"lesa\.index is damaged"):
        read_checkpoint(copied)


def test_a_changed_byte_of_the_index_is_found_or_changes_nothing(copied: Path, authors: Variables) -> None:
    index = Path(f"{copied}.index")
    content = index.read_bytes()
    unnoticed = set()
    for at in range(len(content)):
        index.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            read = read_checkpoint(copied)
        except LesaError:
            continue
        unnoticed.add(at - len(content))
        assert all(np.array_equal(read[name], array) for name, array in authors.items())
    # An empty block that nobody needs (13 bytes), its place and the padding at the end are all that may change.
    assert len(unnoticed) < 55


def reseal(block: bytes, compression: int = 0) -> bytes:
    """A block with its trailer, as a program would write it that means what it writes."""
    tail = bytes([compression])
    return block + tail + masked_crc32c(np.frombuffer(block + tail, np.uint8)).to_bytes(4, "little")


def write_index(path: Path, entries: dict[bytes, bytes], compression: int = 0) -> None:
    """A table of one block, for what TensorFlow does not write on this machine."""

    def block(pairs: dict[bytes, bytes]) -> bytes:
        body = b"".join(bytes([0, len(key), len(value)]) + key + value for key, value in pairs.items())
        return body + bytes(4) + (1).to_bytes(4, "little")

    def place(offset: int, size: int) -> bytes:
        return b"".join(bytes([number & 0x7F | 0x80, number >> 7]) for number in (offset, size))

    data = block(entries)
    directory = block({b"~": place(0, len(data))})
    content = reseal(data, compression) + reseal(directory)
    footer = place(0, 0) + place(len(data) + 5, len(directory))
    path.write_bytes(content + footer.ljust(40, b"\0") + official.MAGIC.to_bytes(8, "little"))


LITTLE = bytes([0x08, 1])


@pytest.mark.parametrize(
    ("entries", "compression", "says"),
    [
        ({b"": LITTLE + bytes([0x10, 1])}, 0, "big-endian"),
        ({b"": LITTLE}, 1, "compressed"),
        ({}, 0, "no header"),
        ({b"": LITTLE, b"x": b"\xff" * 12}, 0, "longer than 64 bits"),
        ({b"": LITTLE, b"x": b"\x12\x7f"}, 0, "longer than its message"),
        ({b"": LITTLE, b"x": b"\x08"}, 0, "damaged"),
        ({b"": LITTLE, b"\xff": b""}, 0, "damaged"),
        ({b"": LITTLE, b"x": b"\x08\x01\x28\x05"}, 0, "cannot have 5 bytes"),
        ({b"": LITTLE, b"x": b"\x08\x0b\x28\x04"}, 0, "type number 11"),
    ],
)
def test_forms_that_are_not_read_are_refused(
    tmp_path: Path, entries: dict[bytes, bytes], compression: int, says: str
) -> None:
    write_index(tmp_path / "made.index", entries, compression)
    with pytest.raises(LesaError, match=f"made.*{says}"):
        read_checkpoint(tmp_path / "made")


def test_the_checksum_is_the_published_one() -> None:
    assert crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
    # RFC 3720, B.4: 32 bytes of zeros, of ones, and rising.
    assert crc32c(np.zeros(32, np.uint8)) == 0x8A9136AA
    assert crc32c(np.full(32, 255, np.uint8)) == 0x62A8AB43
    assert crc32c(np.arange(32, dtype=np.uint8)) == 0x46DD794E


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700))
def test_the_checksum_in_lanes_is_the_one_bit_by_bit(content: bytes) -> None:
    state = 0xFFFFFFFF
    for byte in content:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (official.CRC32C if state & 1 else 0)
    assert crc32c(np.frombuffer(content, np.uint8)) == state ^ 0xFFFFFFFF


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_variable_length_integer_is_read_where_it_stands(value: int, before: bytes, after: bytes) -> None:
    digits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    written = bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])
    assert official.varint(before + written + after, len(before)) == (value, len(before) + len(written))
