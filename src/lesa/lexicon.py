"""The words that a bundle carries: a name -> its row, also in another number; a phrase -> the mean of its words."""

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lesa.bundle import Bundle
from lesa.errors import LesaError
from lesa.labels import other_forms
from lesa.vectors import plain, unit, words

FUNCTION_WORDS = frozenset("a an and are at by for from in into is it its of on or the to with".split())  # noqa: SIM905
"""Left out of a phrase whose vector is composed of its words' vectors."""
NAMED = 10
"""Unknown words that an error names."""


class Lexicon:
    """A bundle's names. Only one that may compose phrases looks for another number of a word, too."""

    def __init__(self, bundle: Bundle) -> None:
        """Take the bundle's names and vectors."""
        self._bundle = bundle
        self.names = bundle.manifest.names
        self._rows = {name: row for row, name in enumerate(self.names)}

    def row(self, name: str) -> int | None:
        """Return where the bundle carries a name: as written, in lower case, or in another number."""
        forms = [name, name.lower()]
        if self._bundle.manifest.composed:
            # `ice-cream` and `hot_dog` are the carried `ice cream` and `hot dog`.
            spaced = " ".join(words(name.lower()))
            head, space, last = spaced.rpartition(" ")
            # The rule for other forms takes `horses` for the plural of `hors`, and does not know `potatoes`.
            others = {*other_forms(last), last.removesuffix("s"), last.removesuffix("es")} if last else set()
            forms += [spaced, *(head + space + form for form in sorted(others))]
        return next((self._rows[form] for form in forms if form in self._rows), None)

    def compose(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return for each name the unit mean of its words' unit vectors (C, E), function words left out.

        Raises:
            LesaError: the bundle does not carry a word; all such words are named.
        """
        found = [{part: self.row(part) for part in self._parts(name)} for name in names]
        unknown = dict.fromkeys(
            part for name, rows in zip(names, found, strict=True) for part in rows or [name] if rows.get(part) is None
        )
        if unknown:
            raise self._unknown(list(unknown))
        vectors_CE = self._bundle.vectors_CE
        means = [vectors_CE[[row for row in rows.values() if row is not None]].mean(axis=0) for rows in found]
        return unit(np.stack(means), names)

    def _parts(self, name: str) -> list[str]:
        """Return the words of a phrase that say something, without signs where the bundle has none with them."""
        said = [word for word in words(name.lower()) if word not in FUNCTION_WORDS]
        parts = [part for word in said for part in ([word] if self.row(word) is not None else plain(word))]
        return [part for part in parts if part not in FUNCTION_WORDS]

    def _unknown(self, unknown: list[str]) -> LesaError:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        near = difflib.get_close_matches(unknown[0], self._rows, n=3)
        hint = f" did you mean {' or '.join(map(repr, near))}?" if near else ""
        return LesaError(
            f"{self._bundle.path} has no vector for {', '.join(map(repr, unknown[:NAMED]))}{more}:{hint} Use other "
            f"words, or give --vectors {' '.join(self._bundle.manifest.sources)} for any (pip install 'lesa-zsl[text]')"
        )
