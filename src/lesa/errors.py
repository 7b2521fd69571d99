"""The one error that people see: what was given, what was expected, what to do."""

import difflib
from collections.abc import Iterable

# Names that a message lists at most: enough for options and recipes, not a vocabulary of thousands.
LISTED = 20


class LesaError(Exception):
    """A mistake in what was handed in. The command line prints it on one line and exits with code 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause that lists what there is and, where one is near, what was probably meant.

    Example:
        >>> did_you_mean("epoch", ["epochs", "seed"])
        "did you mean 'epochs'? There are: epochs, seed"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    return f"{hint}There are: {listed}"
