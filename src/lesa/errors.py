"""The one error that people see. Its message says what was given, what was expected and what to do."""

import difflib
from collections.abc import Iterable

# A message lists at most this many names: enough for options and recipes, too few for a vocabulary of thousands.
LISTED = 20


class LesaError(Exception):
    """A mistake in the input. The command line prints it on one line and exits with code 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause that lists the known names and, if one is similar, asks whether it was meant.

    Example:
        >>> did_you_mean("epoch", ["epochs", "seed"])
        "did you mean 'epochs'? There are: epochs, seed"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    return f"{hint}There are: {listed}"
