"""A vocabulary: label names, seen (photos carry them in training) and unseen (none does); singulars and plurals."""

from dataclasses import dataclass

from lesa.errors import LesaError

SIBILANTS = ("s", "x", "ch", "sh")


@dataclass(frozen=True)
class Vocabulary:
    """Label names of a data set. Columns of every score and target matrix: unseen first, then seen.

    Raises:
        LesaError: a name appears twice, or is empty.
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
                raise LesaError(f"label {name!r} appears twice in the vocabulary: keep it once, as seen or as unseen")
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


def other_forms(word: str) -> set[str]:
    """Return the singular of a word that looks like a plural, else its plurals.

    The benchmark's rule, kept as it is for its counts: it takes `horses` for the plural of `hors`.

    Example:
        >>> sorted(other_forms("sky")), other_forms("boats"), other_forms("glass") == {"glasss", "glasses"}
        (['skies', 'skys'], {'boat'}, True)
    """
    if word.endswith("ies"):
        return {word[:-3] + "y"}
    if word.endswith("es") and word[:-2].endswith(SIBILANTS):
        return {word[:-2]}
    if word.endswith("s") and not word.endswith("ss"):
        return {word[:-1]}
    plurals = {word + "s"}
    if word.endswith("y"):
        plurals.add(word[:-1] + "ies")
    if word.endswith(SIBILANTS):
        plurals.add(word + "es")
    return plurals


def are_twins(word: str, other: str) -> bool:
    """Whether one word is the singular or the plural of the other."""
    return word in other_forms(other) or other in other_forms(word)
