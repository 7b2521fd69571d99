"""Files are complete or do not exist."""

from pathlib import Path

import pytest

from lesa.errors import LesaError
from lesa.files import read_json, read_lines, replacing, sha256, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": True})

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert read_json(path) == {"kept": True}
    assert list(tmp_path.iterdir()) == [path]


def test_lines_come_without_line_ends_tabs_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xef\xbb\xbfbird\t\r\n\r\n car \r\n")
    assert read_lines(path) == ["bird", "car"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(LesaError, match="bad is not a UTF-8 text file"):
        read_lines(path)
    with pytest.raises(LesaError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")
    path.write_text("{")
    with pytest.raises(LesaError, match="not valid JSON"):
        read_json(path)


def test_the_hash_is_the_known_one(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
