"""Forms of English that many readers stumble over, each with what to write instead.

The list is short on purpose: forms that were written often, and that a regular expression finds without false alarms.
"""

import re
from collections.abc import Iterator

_UNIT = (
    "batch|cell|code|draw|epoch|hit|image|label|line|module|photo|process|query|region|request|run|second|seed|split|"
    "step|tag|time"
)
_COUNTED = (
    "bytes|codes|cores|features|images|labels|minutes|multiplications|numbers|photos|pixels|positives|records|regions|"
    "requests|runs|steps|tags|values|words"
)
_THING = (
    "adapter|bar|box|cell|code|colour|column|command|dot|file|folder|function|keyword|label|line|list|map|metric|module|"
    "name|number|object|page|picture|place|recipe|region|row|run|scale|score|seed|step|table|tag|tensor|topic|vector|"
    "weight|word"
)

FORMS = {
    # "a row a photo", "one file a command"
    rf"\b(?:a|an|one) (?:{_THING}) (?:a|an) (?!few\b|little\b|priori\b)[a-z]+": "one row per photo",
    # "5 tags a photo", "features a region"
    rf"\b(?:{_COUNTED}) an? (?:{_UNIT})\b": "5 tags per photo",
    # "the same command goes on", "is gone on with"
    r"\b(?:go|goes|gone|went) on (?:with|where)\b|\b(?:goes|gone) on\b": "the same command continues; is resumed",
    r"\bbegun run": "an unfinished run",
    # "a label stands twice"
    r"\bstands? twice\b": "appears twice",
    # "the labels are none", "a file name that is none". (A capital letter begins a name: "the value is None".)
    r"(?<!there )(?-i:\b(?:is|are) none\b)(?! of the\b)": "no label was given; it is not one of them",
    # "it is no file name". ("There is no file" is fine.)
    r"(?<!there )\b(?:is|are) no (?!longer\b|more\b|less\b|better\b|larger\b|smaller\b)\w+": "it is not a file name",
    # "does not hang on the seed"
    r"\bhangs? on\b": "depends on; waits",
    # "so many labels": the number is missing
    r"\bso many (?!that\b|times\b)\w+": "number of labels; at most 5 labels",
    # "photos that changed or went"
    r"\bor went\b|\bwent away\b": "removed",
    # "of two lines the last one counts"
    r"\b(?:last|later|first|earlier) (?:one|line|entry)(?: of a name)? counts\b": "the last entry wins",
    # "scores are judged"
    r"\bjudg(?:e|es|ed|ing)\b": "evaluate",
}
"""A regular expression -> what to write instead."""

_SEARCHED = re.compile("|".join(f"(?P<f{number}>{form})" for number, form in enumerate(FORMS)), re.IGNORECASE)


def find_forms(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, the words that were found, and what to write instead."""
    for number, line in enumerate(text.splitlines(), start=1):
        for found in _SEARCHED.finditer(line):
            yield number, found.group(), list(FORMS.values())[int(found.lastgroup[1:])]
