"""The words of a bundle: a name, in singular or plural -> its row; a phrase -> the mean of its words' vectors."""

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lesa.bundle import Bundle
from lesa.errors import LesaError
from lesa.labels import other_forms
from lesa.vectors import split_punctuation, split_words, unit

FUNCTION_WORDS = frozenset("a an and are at by for from in into is it its of on or the to with".split())  # noqa: SIM905
"""Words that are left out when the vector of a phrase is composed of its words' vectors."""
NAMED = 10
"""Greatest number of unknown words in a message."""


class Lexicon:
    """A bundle's names. Only if the bundle may compose phrases, a name is also found in singular or plural."""

    def __init__(self, bundle: Bundle) -> None:
        """Look up the rows of the bundle's names."""
        self._bundle = bundle
        self.names = bundle.manifest.names
        self._rows = {name: row for row, name in enumerate(self.names)}

    def row(self, name: str) -> int | None:
        """Return the row of a name: as written, in lower case, in singular or plural. None if the bundle lacks it."""
        forms = [name, name.lower()]
        if self._bundle.manifest.composed:
            # `ice-cream` and `hot_dog` are the bundle's `ice cream` and `hot dog`.
            spaced = " ".join(split_words(name.lower()))
            head, space, last = spaced.rpartition(" ")
            # `other_forms` takes `horses` for the plural of `hors`, and does not know `potatoes`.
            others = {*other_forms(last), last.removesuffix("s"), last.removesuffix("es")} if last else set()
            forms += [spaced, *(head + space + form for form in sorted(others))]
        return next((self._rows[form] for form in forms if form in self._rows), None)

    def compose(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return for each name the unit mean of its words' unit vectors (C, E), without function words.

        Raises:
            LesaError: the bundle has no vector for a word; the message names such words.
        """
        rows_of_parts = [{part: self.row(part) for part in self._parts(name)} for name in names]
        unknown = dict.fromkeys(
            part
            for name, rows in zip(names, rows_of_parts, strict=True)
            for part in rows or [name]
            if rows.get(part) is None
        )
        if unknown:
            raise self._error_for(list(unknown))
        vectors_CE = self._bundle.vectors_CE
        means = [vectors_CE[[row for row in rows.values() if row is not None]].mean(axis=0) for rows in rows_of_parts]
        return unit(np.stack(means), names)

    def _parts(self, name: str) -> list[str]:
        """Return a phrase's words without function words; a word that the bundle lacks also loses its punctuation."""
        content_words = [word for word in split_words(name.lower()) if word not in FUNCTION_WORDS]
        parts = [
            part
            for word in content_words
            for part in ([word] if self.row(word) is not None else split_punctuation(word))
        ]
        return [part for part in parts if part not in FUNCTION_WORDS]

    def _error_for(self, unknown: list[str]) -> LesaError:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        near = difflib.get_close_matches(unknown[0], self._rows, n=3)
        hint = f" did you mean {' or '.join(map(repr, near))}?" if near else ""
        return LesaError(
            f"{self._bundle.path} has no vector for {', '.join(map(repr, unknown[:NAMED]))}{more}:{hint} Use other "
            f"words, or give --vectors {' '.join(self._bundle.manifest.sources)} for all (pip install 'lesa-zsl[text]')"
        )
