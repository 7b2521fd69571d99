"""TensorFlow's checkpoint files, read without TensorFlow.

A V2 checkpoint is a sorted table `PREFIX.index` (names -> type, shape, place) and raw shards `PREFIX.data-*`. A V1
checkpoint is one such table, which also contains the arrays, as protocol buffers.
"""

import math
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lesa.errors import LesaError

Array = np.ndarray[Any, Any]
# A slice of a memoryview does not copy: a V1 checkpoint of VGG-19 has 550 MB.
Bytes = bytes | memoryview

# Numbers of bytes.
FOOTER = 48
BLOCK_TRAILER = 5
MAGIC = 0xDB4775248B80FB57
# TensorFlow's DataType numbers. NumPy has no bfloat16: its 16 bits are read and widened to float32.
BFLOAT16 = 14
DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    9: "<i8",
    10: "?",
    BFLOAT16: "<u2",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
# Strings (for example the object graph of `tf.train.Checkpoint`), resources and variants contain no numbers.
NOT_NUMBERS = {7, 20, 21}
# The field of a TensorProto that has the values of a type in a V1 checkpoint; V1 cannot store other types.
FLOATS = {1: 5, 2: 6}
INTEGERS = {3: 7, 4: 7, 5: 7, 6: 7, 9: 10, 10: 11, 17: 7, 19: 13}


@dataclass(frozen=True)
class _Variable:
    """Type, shape and place of a variable (TensorFlow's BundleEntryProto)."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    partitioned: bool


def read_checkpoint(path: Path | str) -> dict[str, Array]:
    """Read a TensorFlow checkpoint, V2 or V1, without TensorFlow.

    Every block of a table and every array is checked against the checksum that TensorFlow stored with it.
    The variables of a `tf.train.Checkpoint` have its raw keys as names (`.../.ATTRIBUTES/VARIABLE_VALUE`).

    Args:
        path: for V2 the path without `.index` and `.data-00000-of-00001`; for V1 the file, such as `vgg_19.ckpt`.

    Returns:
        Name -> array, sorted by name; bfloat16 is widened to float32; strings and other non-numbers are left out.

    Raises:
        LesaError: the checkpoint does not exist; a file is missing, incomplete or damaged; or its form is not
            supported (big endian, Snappy compression, which TensorFlow never uses here, partitioned variables,
            unusual number types).
    """
    path = Path(path)
    if Path(f"{path}.index").is_file():
        return _read_version_2(path)
    if path.suffix == ".index" or path.suffix.startswith(".data-"):
        raise LesaError(f"{path} is only one file of a checkpoint; give the path without {path.suffix}")
    if path.is_file():
        return _read_version_1(path)
    raise LesaError(
        f"there is no checkpoint {path}: expected {path}.index and {path}.data-00000-of-00001, or one V1 file"
    )


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Turn errors of parsing into a message that names the damaged file."""
    try:
        yield
    except (IndexError, OverflowError, ValueError) as error:
        raise LesaError(f"{path} is damaged: {error}; copy the checkpoint again") from None


# V2: an index of the variables, and their raw bytes in shards.


def _read_version_2(prefix: Path) -> dict[str, Array]:
    path = Path(f"{prefix}.index")
    with _naming_damage(path):
        table = dict(_table(path))
        shards = _shard_count(path, table.pop(b"", b""))
        entries = {key.decode(): _entry(value) for key, value in table.items() if not _is_slice(key)}
    return {
        name: _read_array(Path(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}"), name, entry)
        for name, entry in entries.items()
        if entry.dtype not in NOT_NUMBERS
    }


def _shard_count(path: Path, header: Bytes) -> int:
    """Return the number of shards (BundleHeaderProto)."""
    numbers = _numbers(header)
    if numbers.get(2, 0):
        raise LesaError(f"{path} was written on a big-endian machine, which is not supported; save it on another one")
    if 1 not in numbers:
        raise ValueError("it has no header")
    return numbers[1]


def _is_slice(key: bytes) -> bool:
    # Keys of parts of a partitioned variable begin with a zero byte; names never do.
    return key.startswith(b"\0")


def _entry(message: Bytes) -> _Variable:
    """Decode a BundleEntryProto; fields with the value zero are not written."""
    numbers = _numbers(message)
    return _Variable(
        dtype=numbers.get(1, 0),
        shape=_shape(message),
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        checksum=numbers.get(6, 0),
        partitioned=bool(_messages(message, 7)),
    )


def _shape(message: Bytes) -> tuple[int, ...]:
    """Return the shape in the second field of a message; V1 and V2 both store it there."""
    dimensions = [dimension for shape in _messages(message, 2) for dimension in _messages(shape, 2)]
    return tuple(_numbers(dimension).get(1, 0) for dimension in dimensions)


def _read_array(path: Path, name: str, entry: _Variable) -> Array:
    _refuse_unread(path, name, entry.partitioned, entry.dtype, DTYPES)
    dtype = np.dtype(DTYPES[entry.dtype])
    if entry.size != math.prod(entry.shape) * dtype.itemsize:
        raise LesaError(f"{path}: variable {name} of shape {entry.shape}, {dtype.name}, cannot have {entry.size} bytes")
    array = _read_bytes(path, name, entry).view(dtype).reshape(entry.shape)
    if entry.dtype == BFLOAT16:
        # bfloat16 is the upper half of a float32.
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array


def _refuse_unread(path: Path, name: str, partitioned: bool, dtype: int, known: Container[int]) -> None:
    if partitioned:
        raise LesaError(f"{path}: variable {name} is partitioned, which is not supported; save it undivided")
    if dtype not in known:
        raise LesaError(f"{path}: variable {name} has TensorFlow's type number {dtype}, which is not supported")


def _read_bytes(path: Path, name: str, entry: _Variable) -> Array:
    if not path.is_file():
        raise LesaError(f"{path} is missing: variable {name} is in it; copy all files of the checkpoint")
    end, size = entry.offset + entry.size, path.stat().st_size
    if end > size:
        raise LesaError(f"{path} is incomplete: it has {size} bytes, variable {name} ends at {end}; copy it again")
    content = np.fromfile(path, np.uint8, count=entry.size, offset=entry.offset)
    if masked_crc32c(content) != entry.checksum:
        raise LesaError(f"{path} is damaged: the checksum of variable {name} is wrong; copy it again")
    return content


# V1: one table. Its first message (SavedTensorSliceMeta) describes the variables; each other message has the values of
# one variable.


def _read_version_1(path: Path) -> dict[str, Array]:
    with _naming_damage(path):
        table = dict(_table(path))
        contents = _messages(table.pop(b"", b""), 1)
        if not contents:
            raise ValueError("it has no table of contents")
        variables = {_name(variable): variable for variable in _messages(contents[0], 1)}
        values = {_name(part): _messages(part, 3) for message in table.values() for part in _messages(message, 2)}
        return {
            name: _read_values(path, name, variable, values.get(name, []))
            for name, variable in sorted(variables.items())
            if _numbers(variable).get(3, 0) not in NOT_NUMBERS
        }


def _name(message: Bytes) -> str:
    return bytes(_messages(message, 1)[0]).decode()


def _read_values(path: Path, name: str, variable: Bytes, tensors: list[Bytes]) -> Array:
    """Return one variable's array: `variable` is its SavedSliceMeta, `tensors` its TensorProto."""
    dtype, shape = _numbers(variable).get(3, 0), _shape(variable)
    parts = [_part_shape(part, shape) for part in _messages(variable, 4)]
    _refuse_unread(path, name, parts != [shape], dtype, FLOATS | INTEGERS)
    if not tensors:
        raise ValueError(f"the values of variable {name} are missing")
    array = _values(dtype, tensors[0])
    if array.size != math.prod(shape):
        raise ValueError(f"variable {name} of shape {shape} has {array.size} values")
    return array.reshape(shape)


def _part_shape(part: Bytes, whole: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a part of a variable (TensorSliceProto); a length that is not written is the full one."""
    extents = _messages(part, 1)
    return tuple(_numbers(extent).get(2, size) for extent, size in zip(extents, whole, strict=True))


def _values(dtype: int, tensor: Bytes) -> Array:
    """Return the values of a TensorProto: floats are raw; integers, and the bits of halves, are varints."""
    kind = np.dtype(DTYPES[dtype])
    if dtype in FLOATS:
        return np.concatenate([np.frombuffer(packed, kind) for packed in [b"", *_messages(tensor, FLOATS[dtype])]])
    numbers = [number for packed in _messages(tensor, INTEGERS[dtype]) for number in _varints(packed)]
    return np.array(numbers, np.uint64).astype(f"u{kind.itemsize}").view(kind)


def _varints(data: Bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = varint(data, at)
        yield value


# The table: blocks of sorted entries, each with a checksum, and a last block with the places of the others.


def _table(path: Path) -> Iterator[tuple[bytes, Bytes]]:
    """Yield the keys and values of a sorted table file (LevelDB's format, as TensorFlow writes it)."""
    content = memoryview(path.read_bytes())
    footer = content[-FOOTER:]
    if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError("it does not end like a table of TensorFlow")
    _, at = _handle(footer, 0)
    index_place, _ = _handle(footer, at)
    for _, handle in _block_entries(_block(content, index_place)):
        place, _ = _handle(handle, 0)
        yield from _block_entries(_block(content, place))


def _handle(data: Bytes, at: int) -> tuple[slice, int]:
    """Read a handle: return the place of its block, without the trailer, and the end of the handle."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return slice(offset, offset + size), at


def _block(content: Bytes, place: slice) -> Bytes:
    """Return a block's bytes after checking its trailer: one byte for the compression, four for the checksum."""
    trailer = content[place.stop : place.stop + BLOCK_TRAILER]
    if len(trailer) < BLOCK_TRAILER:
        raise ValueError("it is incomplete")
    checked = np.frombuffer(content[place.start : place.stop + 1], np.uint8)
    if masked_crc32c(checked) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("a block's checksum is wrong")
    if trailer[0] != 0:
        raise ValueError("it is compressed (Snappy), which is not supported; TensorFlow's own checkpoints never are")
    return content[place]


def _block_entries(block: Bytes) -> Iterator[tuple[bytes, Bytes]]:
    """Yield a block's keys and values. For a key, only the part that differs from the key before it is written."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or at + own + size > end:
            raise ValueError("an entry is longer than its block")
        key = key[:shared] + bytes(block[at : at + own])
        yield key, block[at + own : at + own + size]
        at += own + size


# Protocol buffers: the part of their wire format that the tables use.


def varint(data: Bytes, at: int) -> tuple[int, int]:
    """Read a variable-length integer at `at`: seven bits per byte, the lowest first; return it and its end."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("an integer is longer than 64 bits")


def _fields(message: Bytes) -> Iterator[tuple[int, int | Bytes]]:
    """Yield the field numbers and contents of a protocol buffer: numbers as int, the rest as bytes."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = varint(message, at)
            yield number, value
            continue
        size, at = varint(message, at) if wire_type == 2 else ({1: 8, 5: 4}.get(wire_type, len(message)), at)
        if at + size > len(message):
            raise ValueError("a field is longer than its message")
        content = message[at : at + size]
        yield number, content if wire_type == 2 else int.from_bytes(content, "little")
        at += size


def _numbers(message: Bytes) -> dict[int, int]:
    """Return a message's numbers by field number."""
    return {number: content for number, content in _fields(message) if isinstance(content, int)}


def _messages(message: Bytes, field: int) -> list[Bytes]:
    """Return the messages in one field of a message."""
    return [content for number, content in _fields(message) if number == field and not isinstance(content, int)]


# Checksums. CRC-32C is linear over bits: reading zeros multiplies its state by a 32 x 32 matrix of bits. So the bytes
# are cut into lanes, all lanes run at once in NumPy, and such matrices join their states. This takes 0.3 s for the
# 80 MB of VGG-19's convolutions on one core; a loop over bytes would take 10 s.

CRC32C = 0x82F63B78
# The state must start with all ones. These four bytes bring it there from zero, and zeros before them keep it zero.
TO_ONES = np.array([0x54, 0x64, 0x1F, 0x64], np.uint8)


def masked_crc32c(content: Array) -> int:
    """Return TensorFlow's checksum of bytes (uint8): their CRC-32C, rotated by 15 bits, plus a constant."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: Array) -> int:
    """Return the CRC-32C (Castagnoli) of bytes (uint8)."""
    words = -(-(content.size + 4) // 4)
    length = 1 << (words.bit_length() // 2)
    lanes = -(-words // length)
    padded = np.zeros(4 * lanes * length, np.uint8)
    padded[padded.size - content.size :] = content
    padded[padded.size - content.size - 4 : padded.size - content.size] = TO_ONES
    low, high = _word_tables()
    states = np.zeros(lanes, np.uint32)
    for words_of_lanes in np.ascontiguousarray(padded.view("<u4").reshape(lanes, length).T):
        states ^= words_of_lanes
        states = low[states & 0xFFFF] ^ high[states >> 16]
    return _join_lanes(states, 32 * length) ^ 0xFFFFFFFF


def _join_lanes(states: Array, bits: int) -> int:
    """Return the state after all lanes, each of which is `bits` long."""
    while states.size > 1:
        if states.size % 2:
            states = np.concatenate([np.zeros(1, np.uint32), states])
        states = _times(_zeros(bits), states[0::2]) ^ states[1::2]
        bits *= 2
    return int(states[0])


def _times(matrix: Array, states: Array) -> Array:
    """Multiply states by a matrix of bits, which is given by its 32 columns."""
    product = np.zeros_like(states)
    for bit, image in enumerate(matrix):
        product ^= (states >> np.uint32(bit) & np.uint32(1)) * image
    return product


@cache
def _zeros(bits: int) -> Array:
    """Return the matrix by which this number of zero bits (a power of two) changes a state."""
    if bits == 1:
        return np.array([CRC32C] + [1 << bit for bit in range(31)], np.uint32)
    return _times(_zeros(bits // 2), _zeros(bits // 2))


@cache
def _word_tables() -> tuple[Array, Array]:
    """Return the results of reading four zero bytes for every lower and for every upper half of a state."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _times(_zeros(32), halves), _times(_zeros(32), halves << np.uint32(16))
