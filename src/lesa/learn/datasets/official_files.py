"""The official files of a data set: the path of each below a root, and where to get it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesa.errors import LesaError


@dataclass(frozen=True)
class SourceFile:
    """A file or a folder of an official distribution."""

    name: str
    """Its official path below the root of the data set (`ImageList/ImageList.txt`)."""
    distributed: str
    """Where to get it: the archive and the page, in a few words."""
    aliases: tuple[str, ...] = ()
    """Other paths that it may have, such as those of later versions."""

    def find(self, root: Path) -> Path | None:
        """Return the first of its paths that exists below `root`, or None."""
        return next((root / name for name in (self.name, *self.aliases) if (root / name).exists()), None)


def missing_files(root: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the files that are not below `root`."""
    return [file for file in files if file.find(root) is None]


def require_files(root: Path, files: Sequence[SourceFile]) -> list[Path]:
    """Return the path of each file below `root`, in order.

    Raises:
        LesaError: some are missing. The message names each of them and where to get it.
    """
    if missing := missing_files(root, files):
        listed = "".join(f"\n  {file.name}  ({file.distributed})" for file in missing)
        raise LesaError(f"{root} lacks {len(missing)} of {len(files)} files; put them there with these paths:{listed}")
    return [path for file in files if (path := file.find(root))]
