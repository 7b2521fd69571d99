"""The command `lesa`: all commands, and the handling of errors. Heavy imports are inside the commands."""

import sys
from typing import NoReturn

import click

from lesa import __version__
from lesa.cli.ablate import ablate
from lesa.cli.calibrate import calibrate
from lesa.cli.compare import compare
from lesa.cli.demo import demo
from lesa.cli.evaluate import evaluate
from lesa.cli.export import export
from lesa.cli.extract import extract
from lesa.cli.index import index
from lesa.cli.prepare import prepare
from lesa.cli.project import project
from lesa.cli.reproduce import reproduce
from lesa.cli.score import score
from lesa.cli.search import search
from lesa.cli.serve import serve
from lesa.cli.show import show
from lesa.cli.tag import tag
from lesa.cli.train import train
from lesa.cli.write import write
from lesa.errors import LesaError

SETTINGS = {"max_content_width": 100, "help_option_names": ["-h", "--help"], "show_default": True}


@click.group(context_settings=SETTINGS)
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


for command in (
    extract,
    project,
    prepare,
    train,
    evaluate,
    score,
    compare,
    ablate,
    reproduce,
    export,
    calibrate,
    tag,
    show,
    write,
    index,
    search,
    serve,
    demo,
):
    cli.add_command(command)


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
