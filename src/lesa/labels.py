"""A vocabulary: seen labels (training photos have them) and unseen labels (none has them); singulars and plurals."""

from dataclasses import dataclass

from lesa.errors import LesaError

SIBILANTS = ("s", "x", "ch", "sh")


@dataclass(frozen=True)
class Vocabulary:
    """Label names of a data set. Columns of every score and target matrix: unseen labels first, then seen labels.

    Raises:
        LesaError: a name appears twice, or is empty.
    """

    unseen: tuple[str, ...]
    """The labels that no training photo has (U names)."""
    seen: tuple[str, ...]
    """The labels of the training photos (S names)."""

    def __post_init__(self) -> None:
        """Refuse empty and repeated names."""
        earlier: set[str] = set()
        for name in self.names:
            if not name.strip():
                raise LesaError("a label name is empty: remove the empty line from the label list")
            if name in earlier:
                raise LesaError(f"label {name!r} appears twice in the vocabulary: keep it once, as seen or as unseen")
            earlier.add(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in column order (C = U + S names)."""
        return self.unseen + self.seen

    @property
    def unseen_columns(self) -> slice:
        """The columns of the unseen labels."""
        return slice(0, len(self.unseen))

    @property
    def seen_columns(self) -> slice:
        """The columns of the seen labels."""
        return slice(len(self.unseen), len(self.names))


def other_forms(word: str) -> set[str]:
    """Return the singular if the word looks like a plural, else its plurals.

    This is the benchmark's rule. It takes `horses` for the plural of `hors`, but a better rule would change the counts
    of the benchmark.

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
