"""Named metric rules: the choices in which papers and libraries differ.

Papers compute F1 and mAP by different rules, and the results differ by tens of points. A new rule is one entry in
`RULES`. If it needs a new field of `Rules`, only `RuledScores` in `lesa.evaluation.report` reads it.
"""

from typing import Literal, NamedTuple, TypeAlias

from lesa.errors import LesaError, did_you_mean

Ties: TypeAlias = Literal["grouped", "earlier", "later"]
"""Images with equal scores are found together, or one by one: the earlier in the file first, or the later first."""


class Rules(NamedTuple):
    """The choices in which papers and libraries differ. The defaults are the choices of the authors' program."""

    at_k: bool = True
    """Whether the rules define precision, recall and F1 at K (micro averages over all labels)."""
    labelled_images_only: bool = False
    """Whether images without a present label are left out of every metric."""
    masked: bool = True
    """Whether images that are not annotated for a label (0) are left out of its average precision. If not: absent."""
    annotated_labels_only: bool = False
    """Whether labels without any annotated image are left out of the mean. If not, it is 0 for them."""
    ties: Ties = "grouped"
    """How average precision treats equal scores."""


RULES = {
    "lesa": Rules(),
    "biam_oi": Rules(labelled_images_only=True, annotated_labels_only=True, ties="earlier"),
    "miil": Rules(labelled_images_only=True, masked=False, ties="later"),
    "openimages": Rules(at_k=False, annotated_labels_only=True),
    "sklearn": Rules(at_k=False, masked=False),
}
"""The rules by name.

* `lesa`: the authors' program (its `core/utils.py`). Micro P, R and F1 at K over all images; labels that are not
  annotated count as absent. Average precision over the annotated images; 0 for a label without a present image.
* `biam_oi`: BiAM's program for Open Images (its `evaluate_openimages.py`). Images without a present label are left
  out, then labels without any annotation.
* `miil`: SDL, ML-Decoder and later programs (their `helper_functions.py`). Images without a present label are left
  out; labels that are not annotated count as absent.
* `openimages`: the Open Images evaluation. The mean is over the labels with at least one annotation.
* `sklearn`: scikit-learn's macro `average_precision_score`.
"""


def find_rules(name: str) -> Rules:
    """Return the rules of a name.

    Raises:
        LesaError: there are no rules of that name.
    """
    if name not in RULES:
        raise LesaError(f"there are no metric rules {name!r}; {did_you_mean(name, RULES)}")
    return RULES[name]
