"""Files that are never half written (a temporary file is written, then renamed); reading text and JSON; hashes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lesa.errors import LesaError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is renamed to `path` on success and deleted on failure.

    A reader sees the old file or the new one, never a part of it. The bytes are on the disk before the rename.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` (UTF-8) to `path`, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON to `path`, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        LesaError: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LesaError(f"{path} does not exist") from None
    except ValueError as error:
        raise LesaError(f"{path} is not valid JSON: {error}") from None


def read_format(path: Path, expected: str, remedy: str) -> dict[str, Any]:
    """Read the JSON file that describes a folder; its key `format` names the format of the folder.

    Args:
        path: the file.
        expected: the format that this version reads.
        remedy: what to do if the folder has another format.

    Raises:
        LesaError: the file is missing, is not JSON, or names another format.
    """
    manifest = read_json(path)
    given = manifest.get("format") if isinstance(manifest, dict) else None
    if given != expected:
        raise LesaError(f"{path.parent} has format {given!r}, this version reads {expected!r}: {remedy}")
    return dict(manifest)


def read_lines(path: Path | str) -> list[str]:
    """Read a text file's lines, without empty lines and without blanks, tabs or line ends around each line.

    Raises:
        LesaError: the file is missing or is not text.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LesaError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise LesaError(f"{path} is not a UTF-8 text file: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield `file:line` (for messages) and the text of each line that is not blank.

    Raises:
        LesaError: the file is missing or is not text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\n")
    except FileNotFoundError:
        raise LesaError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise LesaError(f"{path} is not a UTF-8 text file: {error}") from None


def sha256(path: Path | str) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
