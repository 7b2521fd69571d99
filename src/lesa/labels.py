"""A vocabulary: label names, seen (photos carry them in training) and unseen (none does)."""

from dataclasses import dataclass

from lesa.errors import LesaError


@dataclass(frozen=True)
class Vocabulary:
    """Label names of a data set. Columns of every score and target matrix: unseen first, then seen.

    Raises:
        LesaError: a name stands twice, or is empty.
    """

    unseen: tuple[str, ...]
    """The labels that no training photo carries (U names)."""
    seen: tuple[str, ...]
    """The labels of the training photos (S names)."""

    def __post_init__(self) -> None:
        """Refuse names that would make a column ambiguous."""
        known: set[str] = set()
        for name in self.names:
            if not name.strip():
                raise LesaError("a label name is empty: remove the empty line from the label list")
            if name in known:
                raise LesaError(f"label {name!r} stands twice in the vocabulary: keep it once, as seen or as unseen")
            known.add(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in column order (C = U + S names)."""
        return self.unseen + self.seen

    @property
    def unseen_columns(self) -> slice:
        """The unseen labels' columns."""
        return slice(0, len(self.unseen))

    @property
    def seen_columns(self) -> slice:
        """The seen labels' columns."""
        return slice(len(self.unseen), len(self.names))
