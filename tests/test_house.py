"""The order of the package: one name for one thing, no import circle, a cheap front door, plain English."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from helpers.plain_english import FORMS, find_forms

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lesa"
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
INTERFACE = {"photo_forms"}
"""Functions that several dataset adapters give under one name."""
MOST_MODULES = 22
"""Modules directly in src/lesa: more than a reader takes in at once."""
PROSE = {".py", ".md", ".html", ".js"}
EXEMPT = {
    "CHANGELOG.md",  # It lists old names.
    "tests/helpers/plain_english.py",
    "tests/test_house.py",
}
"""Files that are not searched for forms to avoid."""


@cache
def trees() -> Mapping[str, ast.Module]:
    """Return the package's modules by name, parsed."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imports(node: ast.AST) -> Iterator[str]:
    """Yield the names that a module imports, also inside functions, without imports for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "the package imports by full names"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            yield from (name for part in child.orelse for name in imports(part))
        else:
            yield from imports(child)


@cache
def graph() -> Mapping[str, set[str]]:
    """Return the package's modules that each of its modules imports."""
    modules = trees()

    def module_of(name: str) -> str:
        return name if name in modules else name.rpartition(".")[0]

    return {
        module: {module_of(name) for name in imports(tree) if module_of(name) in modules} - {module}
        for module, tree in modules.items()
    }


def find_circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of an import circle, if there is one."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(arrows[module]):
            if circle := walk(other, [*path, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(arrows) if (circle := walk(module, []))), [])


def test_no_two_public_things_share_a_name() -> None:
    homes = defaultdict(list)
    for module, tree in trees().items():
        # A command may have the name of the function that it runs.
        for node in () if is_in(module, "lesa.cli") else tree.body:
            if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
                homes[node.name].append(module)
    shared = {name: where for name, where in homes.items() if len(where) > 1 and name not in INTERFACE}
    assert shared == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert find_circle(graph()) == []


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d"]


def test_only_commands_import_what_learns() -> None:
    wrong = {
        module: sorted(learns)
        for module, others in graph().items()
        if not is_in(module, "lesa.learn", "lesa.cli") and (learns := {m for m in others if is_in(m, "lesa.learn")})
    }
    assert wrong == {}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"typing", "numpy", "torch", "click", "PIL", "onnxruntime"}
    # `-S`: without `site`, whose .pth files may load modules of their own.
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import lesa; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_front_door_opens() -> None:
    import lesa

    assert {name: getattr(lesa, name).__name__ for name in lesa.__all__} == {name: name for name in lesa.__all__}
    assert set(lesa.__all__) <= set(dir(lesa))
    with pytest.raises(AttributeError, match="Taggr"):
        lesa.Taggr  # noqa: B018


def test_the_listing_is_short() -> None:
    modules = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert len(modules) <= MOST_MODULES, sorted(modules)


def prose() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    # Without git, as in a source archive, the folders that hold text are searched.
    names = listed.stdout.splitlines() or [
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "tests", "docs", "benchmarks", "tools", "configs")
        for path in (ROOT / folder).rglob("*")
    ]
    return [ROOT / name for name in names if Path(name).suffix in PROSE and name not in EXEMPT]


def test_prose_is_plain() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {words!r}; write, for example: {instead}"
        for path in prose()
        if path.is_file()
        for number, words, instead in find_forms(path.read_text(encoding="utf-8"))
    ]
    assert not found, f"{len(found)} forms to avoid:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("hard", "number"),
    [
        ("a row a photo", 1),
        ("one keyword a line", 1),
        ("So many seeds, from 0.", 1),
        ("Photos that changed or went are judged", 2),
        ("its name is none and it is no file name", 2),
        ("a photo a few times, it is none of the labels, the value is None, there is none", 0),
        ("there is no photo, it is no longer there", 0),
    ],
)
def test_forms_to_avoid_are_found(hard: str, number: int) -> None:
    assert len(list(find_forms(hard))) == number
    assert all(isinstance(instead, str) for instead in FORMS.values())
