"""The files that an official data set is distributed as: where each lies below a root, or where to get it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesa.errors import LesaError


@dataclass(frozen=True)
class SourceFile:
    """A file, or a folder, of an official distribution."""

    name: str
    """Its path below the data set's root, as distributed (`ImageList/ImageList.txt`)."""
    distributed: str
    """Where people get it: the archive and the page, in a few words."""
    aliases: tuple[str, ...] = ()
    """Other paths that it circulates under, such as those of later versions."""

    def find(self, root: Path) -> Path | None:
        """Return the first of its paths that there is below `root`."""
        return next((root / name for name in (self.name, *self.aliases) if (root / name).exists()), None)


def missing_files(root: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the files that are not below `root`."""
    return [file for file in files if file.find(root) is None]


def require_files(root: Path, files: Sequence[SourceFile]) -> list[Path]:
    """Return the path of each file below `root`, in order.

    Raises:
        LesaError: some are missing; it names each of them and where it is distributed.
    """
    if missing := missing_files(root, files):
        listed = "".join(f"\n  {file.name}  ({file.distributed})" for file in missing)
        raise LesaError(f"{root} lacks {len(missing)} of {len(files)} files; put them there as distributed:{listed}")
    return [path for file in files if (path := file.find(root))]
