"""Checkpoints of TensorFlow (tools/make_tensorflow_checkpoints.py), V2 and V1 (`..._1`), are read without it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesa.errors import LesaError
from lesa.learn.regions import vgg19
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.tensorflow import checkpoint
from lesa.learn.tensorflow.checkpoint import crc32c, masked_crc32c, read_checkpoint

FOLDER = Path(__file__).parent / "data" / "tensorflow"
# Checkpoints with the same values as another one.
VALUES = {"vgg_19_1": "vgg_19"}
Variables = dict[str, np.ndarray]


def expected(name: str) -> Variables:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def authors() -> Variables:
    return read_checkpoint(FOLDER / "lesa")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The prefix of a copied checkpoint, which a test may damage."""
    for file in FOLDER.glob("lesa.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "lesa"


@pytest.mark.parametrize("name", ["lesa", "vgg_19", "types", "objects", "types_1", "vgg_19_1"])
def test_arrays_are_bit_for_bit_what_tensorflow_stored(name: str) -> None:
    arrays = read_checkpoint(FOLDER / name)
    stored = {key: array for key, array in expected(VALUES.get(name, name)).items() if not key.startswith("given/")}
    assert list(arrays) == sorted(stored)
    for key, array in arrays.items():
        assert (array.dtype, array.shape) == (stored[key].dtype, stored[key].shape), key
        assert array.tobytes() == stored[key].tobytes(), key


def test_the_types_checkpoint_has_several_shards_and_a_string() -> None:
    assert len(list(FOLDER.glob("types.data-*-of-00003"))) == 3
    assert b"text" in (FOLDER / "types.index").read_bytes()
    assert "text" not in read_checkpoint(FOLDER / "types")


def test_the_types_of_version_1_have_a_string_and_the_ends_of_their_ranges() -> None:
    arrays = read_checkpoint(FOLDER / "types_1")
    assert b"text" in (FOLDER / "types_1").read_bytes()
    assert arrays.keys() >= {"empty", "scalar", "ends/float16", "types/bool"}
    assert "text" not in arrays
    assert list(arrays["ends/int64"]) == [-(2**63), 2**63 - 2, 2**63 - 1]


@pytest.mark.parametrize("name", ["blocks", "blocks_1"])
def test_a_table_of_several_blocks_is_read_whole(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(FOLDER / "blocks.zip") as archive:
        archive.extractall(tmp_path)
    arrays = read_checkpoint(tmp_path / name)
    assert [float(array) for array in arrays.values()] == list(range(900))
    assert list(arrays)[301] == "b" * 400 + "/0001/" + "b" * 700


def test_tensorflow_is_not_imported() -> None:
    code = "import sys, lesa.learn.tensorflow.checkpoint; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("partitioned", "variable parts is partitioned"),
        ("partitioned_1", "variable parts is partitioned"),
        ("nowhere", "there is no checkpoint .*nowhere: expected .*nowhere.index.* or one V1 file"),
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


@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_cut_shard_is_named(copied: Path, length: int) -> None:
    shard = Path(f"{copied}.data-00000-of-00001")
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(LesaError, match=r"lesa\.data-00000-of-00001 is incomplete"):
        read_checkpoint(copied)


def test_a_changed_bit_of_a_shard_is_found(copied: Path) -> None:
    shard = Path(f"{copied}.data-00000-of-00001")
    content = bytearray(shard.read_bytes())
    content[1234] ^= 1
    shard.write_bytes(content)
    with pytest.raises(LesaError, match=r"lesa\.data-00000-of-00001 is damaged: the checksum of variable"):
        read_checkpoint(copied)


@pytest.mark.parametrize("length", [0, 20, 48, 400, -1])
def test_a_cut_index_is_named(copied: Path, length: int) -> None:
    index = Path(f"{copied}.index")
    index.write_bytes(index.read_bytes()[:length])
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
    # Only an unused empty block (13 bytes), its place and the padding at the end may change.
    assert len(unnoticed) < 55


def reseal(block: bytes, compression: int = 0) -> bytes:
    """A block with a trailer whose checksum is right."""
    tail = bytes([compression])
    return block + tail + masked_crc32c(np.frombuffer(block + tail, np.uint8)).to_bytes(4, "little")


def write_index(path: Path, entries: dict[bytes, bytes], compression: int = 0) -> None:
    """Write a table of one block, for forms that TensorFlow does not write by itself."""

    def block(pairs: dict[bytes, bytes]) -> bytes:
        body = b"".join(bytes([0, len(key), len(value)]) + key + value for key, value in pairs.items())
        return body + bytes(4) + (1).to_bytes(4, "little")

    def place(offset: int, size: int) -> bytes:
        return b"".join(bytes([number & 0x7F | 0x80, number >> 7]) for number in (offset, size))

    data = block(entries)
    directory = block({b"~": place(0, len(data))})
    content = reseal(data, compression) + reseal(directory)
    footer = place(0, 0) + place(len(data) + 5, len(directory))
    path.write_bytes(content + footer.ljust(40, b"\0") + checkpoint.MAGIC.to_bytes(8, "little"))


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A copied V1 checkpoint under its published name, which a test may damage."""
    return Path(shutil.copy(FOLDER / "vgg_19_1", tmp_path / "vgg_19.ckpt"))


def test_vgg19_loads_from_version_1_as_from_version_2(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = tuple((layers, 2) for layers, _ in vgg19.VGG_BLOCKS)
    monkeypatch.setattr(vgg19, "VGG_BLOCKS", narrow)
    loaded = [load_backbone("vgg19", weights=path) for path in (version_1, FOLDER / "vgg_19")]
    assert loaded[0].fingerprint() == loaded[1].fingerprint()
    kernel = expected("vgg_19")["vgg_19/conv5/conv5_4/weights"]
    assert np.array_equal(loaded[0].module.features[34].weight.numpy(force=True), kernel.transpose(3, 2, 0, 1))


def test_arrays_of_version_1_are_their_own(version_1: Path) -> None:
    for array in read_checkpoint(version_1).values():
        assert array.flags.owndata or array.base.flags.owndata
        assert array.flags.writeable
        assert array.flags.aligned


@pytest.mark.parametrize("length", [0, 20, 48, 4000, -1])
def test_a_cut_file_of_version_1_is_named(version_1: Path, length: int) -> None:
    version_1.write_bytes(version_1.read_bytes()[:length])
    with pytest.raises(LesaError, match=r"vgg_19\.ckpt is damaged"):
        read_checkpoint(version_1)


def test_a_changed_byte_of_version_1_is_found_or_changes_nothing(version_1: Path) -> None:
    content, stored = version_1.read_bytes(), expected("vgg_19")
    unnoticed = set()
    for at in [*range(0, len(content) - 100, 29), *range(len(content) - 100, len(content))]:
        version_1.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            read = read_checkpoint(version_1)
        except LesaError:
            continue
        unnoticed.add(at)
        assert all(np.array_equal(read[name], array) for name, array in stored.items())
    # As in an index, only the end may change: an empty block, its place and padding.
    assert len(unnoticed) < 55
    assert min(unnoticed) > len(content) - 100


def field(number: int, content: bytes) -> bytes:
    """A field with bytes of a protocol buffer."""
    return bytes([number << 3 | 2, len(content)]) + content


def contents(variable: bytes) -> bytes:
    """The first message of a V1 checkpoint of one variable `x`."""
    return field(1, field(1, field(1, b"x") + variable))


def values(tensor: bytes) -> bytes:
    """The message of the values of `x`."""
    return field(2, field(1, b"x") + field(3, tensor))


# Two numbers in single precision, in one part.
PAIR = field(2, field(2, b"\x08\x02")) + b"\x18\x01" + field(4, field(1, b""))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({b"a": values(b"")}, "no table of contents"),
        ({b"": contents(PAIR)}, "values of variable x are missing"),
        ({b"": contents(PAIR), b"a": values(field(5, bytes(4)))}, r"variable x of shape \(2,\) has 1 values"),
        ({b"": contents(PAIR), b"a": values(field(5, bytes(7)))}, "damaged"),
        ({b"": contents(PAIR.replace(b"\x18\x01", b"\x18\x03")), b"a": values(field(7, b"\1\x80"))}, "damaged"),
        ({b"": contents(PAIR.replace(b"\x18\x01", b"\x18\x08")), b"a": values(b"")}, "type number 8"),
        ({b"": contents(PAIR + field(4, field(1, b"")))}, "variable x is partitioned"),
        ({b"": contents(PAIR[:-4] + field(4, field(1, b"\x10\1")))}, "variable x is partitioned"),
        ({b"": field(1, field(1, b"\x18\x01"))}, "damaged"),
    ],
)
def test_forms_of_version_1_that_are_not_read_are_refused(
    tmp_path: Path, entries: dict[bytes, bytes], says: str
) -> None:
    write_index(tmp_path / "made", entries)
    with pytest.raises(LesaError, match=f"made.*{says}"):
        read_checkpoint(tmp_path / "made")


def test_a_part_that_is_said_to_be_whole_is_whole(tmp_path: Path) -> None:
    explicit = PAIR[:-4] + field(4, field(1, b"\x10\2"))
    tensor = field(5, np.array([1.5, -2], "<f4").tobytes())
    write_index(tmp_path / "made", {b"": contents(explicit), b"a": values(tensor)})
    assert list(read_checkpoint(tmp_path / "made")["x"]) == [1.5, -2]


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
            state = state >> 1 ^ (checkpoint.CRC32C if state & 1 else 0)
    assert crc32c(np.frombuffer(content, np.uint8)) == state ^ 0xFFFFFFFF


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_variable_length_integer_is_read_where_it_stands(value: int, before: bytes, after: bytes) -> None:
    digits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    written = bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])
    assert checkpoint.varint(before + written + after, len(before)) == (value, len(before) + len(written))
