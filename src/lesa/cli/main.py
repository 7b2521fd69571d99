"""The command `lesa`: the list of commands, and the handling of errors."""

import sys
from importlib import import_module
from typing import NoReturn

import click

from lesa import __version__
from lesa.errors import LesaError, did_you_mean

COMMANDS = (
    "extract",
    "project",
    "prepare",
    "train",
    "evaluate",
    "score",
    "compare",
    "ablate",
    "reproduce",
    "export",
    "calibrate",
    "tag",
    "show",
    "write",
    "index",
    "search",
    "serve",
    "demo",
)
"""The command NAME is the function NAME in `lesa/cli/NAME.py`."""
SETTINGS = {"max_content_width": 100, "help_option_names": ["-h", "--help"], "show_default": True}


class _Commands(click.Group):
    """The commands. Each is imported from its own file when it is needed, so that the others cost no time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name.startswith("-"):
            return None
        if cmd_name not in COMMANDS:
            ctx.fail(f"there is no command {cmd_name!r}; {did_you_mean(cmd_name, COMMANDS)}")
        command: click.Command = getattr(import_module(f"lesa.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="lesa")
def cli() -> None:
    """Recognise all labels in a photo, also labels that no training photo had.

    \b
    photos -> regions             lesa extract, lesa project
    labels -> targets             lesa prepare
    regions x label vectors       lesa train
    scores -> tables, pictures    lesa evaluate, lesa show
    any method's scores -> tables lesa score
    methods and ablations         lesa compare, lesa ablate
    the paper's tables            lesa reproduce
    trained run -> bundle         lesa export
    scores -> probabilities       lesa calibrate
    bundle x photos -> tags       lesa tag, lesa show, lesa write
    words -> photos               lesa index, lesa search
    tags and search on a page     lesa serve
    a demo on embedded data       lesa demo
    """


def main() -> NoReturn:
    """Run the command line. A user's mistake or a full disk ends it with one line and exit code 2."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (LesaError, OSError) as error:
        click.echo(f"lesa: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("lesa: stopped; finished work is kept", err=True)
        sys.exit(130)
    sys.exit(0)
