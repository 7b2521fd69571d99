"""The documents tell the truth: their commands parse, their targets, files and keys exist, their Python runs."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from lesa.cli.main import cli
from lesa.learn.experiments.comparison import read_comparison
from lesa.learn.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [path for pattern in ("*.md", "docs/*.md", "examples/*/*.md") for path in sorted(ROOT.glob(pattern))]
SHELL = {"sh", "bash"}
KEYWORDS = {"do", "then", "else", "time", "!"}
FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OWN_PATH = re.compile(r"(?:src|tests|docs|configs|benchmarks|tools|examples)/[\w./-]*\w/?")
ASSIGNMENT = re.compile(r"\w+=.*")


def commands_of(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands_of(command, (*path, name))


COMMANDS = dict(commands_of(cli))


def blocks(document: Path, languages: set[str]) -> list[str]:
    found = FENCE.finditer(document.read_text(encoding="utf-8"))
    return [block["text"] for block in found if block["language"] in languages]


def simple_commands(script: str) -> Iterator[list[str]]:
    """Split a shell script into its simple commands, without comments, keywords and assignments in front."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                if words:
                    yield words
                words = []
            elif words or not (word in KEYWORDS or ASSIGNMENT.fullmatch(word)):
                words.append(word)


def shown(program: str) -> list[Any]:
    """Return every command of `program` in the documents' shell blocks, as its arguments."""
    return [
        pytest.param(words[1:], id=f"{document.name}: {' '.join(words)}")
        for document in DOCUMENTS
        for block in blocks(document, SHELL)
        for words in simple_commands(block)
        if Path(words[0]).name == program
    ]


def examples() -> list[Any]:
    """Return every command under `Example:` in the command line's help, as its arguments."""
    texts = {path: (command.help or "").partition("Example:")[2] for path, command in COMMANDS.items()}
    return [
        pytest.param(words[1:], id=f"help: {' '.join(words)}")
        for text in texts.values()
        for words in simple_commands(text.replace("\b", ""))
    ]


def parse(arguments: list[str]) -> click.Context:
    """Parse the arguments of `lesa` with the real commands, without running them."""
    command: click.Command = cli
    context = None
    arguments = arguments[: arguments.index(">")] if ">" in arguments else list(arguments)
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        context = click.Context(command, parent=context)
        _, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command = found
    return command.make_context(command.name, arguments, parent=context)


def inline_code(document: Path) -> list[str]:
    return INLINE.findall(FENCE.sub("", document.read_text(encoding="utf-8")))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("arguments", [*shown("lesa"), *examples()])
def test_a_command_that_is_shown_parses(arguments: list[str]) -> None:
    if "--help" in arguments:
        with pytest.raises(click.exceptions.Exit, match="0"):
            parse(arguments)
        return
    context = parse(arguments)
    config = context.params.get("config")
    if config is not None and not any("$" in word for word in arguments):
        read = read_comparison if config.name.startswith("compare-") else read_recipe
        read(ROOT / config, overrides=list(context.params["overrides"]))


@pytest.mark.parametrize(
    "arguments",
    [["trian"], ["train"], ["train", "x.toml", "-o", "x", "--sets", "a=1"], ["show", "run", "--top", "many"]],
)
def test_the_check_sees_a_command_that_is_wrong(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(arguments)


def test_the_commands_of_a_script_are_found() -> None:
    script = (
        'for s in 0 1; do A=1 lesa train c.toml \\\n  --set "seed=$s"; done # lesa no\nmake test && lesa show r *.jpg'
    )
    found = [words for words in simple_commands(script) if words[0] in {"lesa", "make"}]
    assert found == [
        ["lesa", "train", "c.toml", "--set", "seed=$s"],
        ["make", "test"],
        ["lesa", "show", "r", "*.jpg"],
    ]


def test_every_command_shows_an_example() -> None:
    missing = [path for path, command in COMMANDS.items() if "Example:" not in (command.help or "")]
    assert missing == [("prepare",)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_named_in_the_text_exist(document: Path) -> None:
    options = {option for command in COMMANDS.values() for each in command.params for option in each.opts}
    for code in inline_code(document):
        words = code.split()
        if words[0] == "lesa" and len(words) > 1:
            assert (words[1],) in COMMANDS or words[1] == "--help", code
        if words[0].startswith("--"):
            assert words[0] in options, code


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_that_are_named_exist(document: Path) -> None:
    in_text = [code.split() for code in inline_code(document)]
    in_blocks = [words for block in blocks(document, SHELL) for words in simple_commands(block)]
    for words in in_text + in_blocks:
        if "make" in words:
            assert set(words[words.index("make") + 1 :]) <= targets(), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if not target.startswith(("https://", "http://", "mailto:")):
            name, _, heading = target.partition("#")
            place = document.parent / name if name else document
            assert place.exists(), target
            assert not heading or heading in headings(place), target


def headings(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    lines = FENCE.sub("", document.read_text(encoding="utf-8")).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_of_the_project_that_are_named_exist(document: Path) -> None:
    in_blocks = [word for block in blocks(document, SHELL) for words in simple_commands(block) for word in words]
    for name in [*inline_code(document), *in_blocks]:
        if OWN_PATH.fullmatch(name):
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_says_its_language(document: Path) -> None:
    languages = {block["language"] for block in FENCE.finditer(document.read_text(encoding="utf-8"))}
    assert languages <= SHELL | {"python", "toml", "text", "json", "bibtex"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name: photos, their labels and a bundle."""
    from skimage import data

    folder = tmp_path_factory.mktemp("workplace")
    places = {"photo.jpg": data.astronaut, "holiday/coffee.jpg": data.coffee, "holiday/rocket.jpg": data.rocket}
    labels = {"astronaut": "man", "camera": "man", "chelsea": "dog", "coffee": "water"}
    rows = ["photo,labels"]
    for name, label in labels.items():
        for number in range(3):
            places[f"photos/{name}-{number}.jpg"] = getattr(data, name)
            rows.append(f"{name}-{number}.jpg,{label}")
    places["photos/beach.jpg"] = data.rocket
    for place, load in places.items():
        (folder / place).parent.mkdir(exist_ok=True)
        Image.fromarray(load()).save(folder / place)
    (folder / "photos" / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "flickr8k.lesa").symlink_to(ROOT / "src" / "lesa" / "default.lesa")
    for name in ("tests", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize(
    "code",
    [pytest.param(block, id=document.name) for document in DOCUMENTS for block in blocks(document, {"python"})],
)
def test_a_python_example_runs(code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    exec(compile(code, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize(
    "text", [pytest.param(block, id=document.name) for document in DOCUMENTS for block in blocks(document, {"toml"})]
)
def test_a_recipe_that_is_shown_is_one(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    read_recipe(recipe)


def test_the_tree_in_the_readme_is_the_source_tree() -> None:
    (tree,) = blocks(ROOT / "README.md", {"text"})
    lines = tree.splitlines()
    assert len(lines) <= 25
    listed, folder = set(), {-4: ""}
    for line in lines:
        indent = len(line) - len(line.lstrip())
        names = re.split(r"\s{2,}", line.strip())[0].split()
        paths = [folder[indent - 4] + name for name in names]
        folder[indent] = paths[-1]
        listed.update(path.rstrip("/") for path in paths)
    assert [path for path in listed if not (ROOT / path).exists()] == []
    there = [path for place in ("src/lesa", "src/lesa/learn") for path in (ROOT / place).iterdir()]
    kept = [path for path in there if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert {path.relative_to(ROOT).as_posix() for path in kept if not path.name.startswith("__")} <= listed


def test_help_lists_every_command() -> None:
    for path, command in [((), cli), *COMMANDS.items()]:
        result = CliRunner().invoke(cli, [*path, "--help"])
        assert result.exit_code == 0
        listed = result.output.partition("Commands:")[2]
        names = command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
        assert all(name in listed for name in names)


def test_the_overview_names_every_command() -> None:
    overview = re.findall(r"lesa ([a-z-]+)", cli.help or "")
    assert sorted(set(overview)) == sorted(name for (name, *rest) in COMMANDS if not rest)


def test_help_needs_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "scipy", "matplotlib", "onnxruntime", "sentence_transformers"}
    code = f"""
import sys
from lesa.cli.main import cli
cli(["--help"], standalone_mode=False)
sys.exit(", ".join({heavy} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout
