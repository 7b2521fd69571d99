"""The everyday words: enough of them, each once and in one form, each kind in one place and used by several words."""

from collections import Counter
from pathlib import Path

import pytest

from lesa.labels import other_forms

FILE = Path(__file__).resolve().parents[1] / "tools" / "everyday-words.txt"
LEAST = 1500
SEVERAL = 2
LINES = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
PATHS = [tuple(line.split("|")) for line in LINES]
WORDS = [path[-1] for path in PATHS]


def test_there_are_many_words_and_none_twice() -> None:
    assert len(WORDS) >= LEAST
    assert [word for word, count in Counter(WORDS).items() if count > 1] == []


def test_no_word_is_in_singular_and_plural() -> None:
    words = set(WORDS)
    assert [(word, other_forms(word) & words) for word in WORDS if other_forms(word) & words] == []


def test_parts_are_clean_and_the_lines_are_sorted() -> None:
    parts = [part for path in PATHS for part in path]
    assert [part for part in parts if not part or part != " ".join(part.split()).lower()] == []
    assert sorted(PATHS) == PATHS


@pytest.fixture
def kinds() -> Counter[tuple[str, ...]]:
    """Return the number of words directly or further below each kind, by the kind's own path."""
    return Counter(path[:depth] for path in PATHS for depth in range(1, len(path)))


def test_a_kind_has_one_place(kinds: Counter[tuple[str, ...]]) -> None:
    places = {path[-1]: path for path in PATHS}
    assert [path for path in kinds if places.setdefault(path[-1], path) != path] == []


def test_a_kind_is_used_by_several_words(kinds: Counter[tuple[str, ...]]) -> None:
    assert [kind for kind, count in kinds.items() if count < SEVERAL] == []
    assert max(map(len, kinds)) <= 3
