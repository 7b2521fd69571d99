"""Recognise every label in a photo, also labels that no training photo carried."""

from importlib import import_module

TYPE_CHECKING = False  # Type checkers read the block below; the module `typing` itself would cost 10 ms.
if TYPE_CHECKING:
    from lesa.bundle import open_bundle
    from lesa.codes import Codes
    from lesa.errors import LesaError
    from lesa.evaluation.report import Report, evaluate
    from lesa.index.search import Hit, Index
    from lesa.tagger import Labels, Tag, Tagger

__version__ = "0.1.0"

_HOMES = {
    "Tagger": "lesa.tagger",
    "Tag": "lesa.tagger",
    "Labels": "lesa.tagger",
    "Codes": "lesa.codes",
    "Index": "lesa.index.search",
    "Hit": "lesa.index.search",
    "open_bundle": "lesa.bundle",
    "evaluate": "lesa.evaluation.report",
    "Report": "lesa.evaluation.report",
    "LesaError": "lesa.errors",
}
"""Where each public name is defined. It is imported when it is first used, so `import lesa` stays cheap (PEP 562)."""

__all__ = [
    "Codes",
    "Hit",
    "Index",
    "Labels",
    "LesaError",
    "Report",
    "Tag",
    "Tagger",
    "evaluate",
    "open_bundle",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lesa' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
