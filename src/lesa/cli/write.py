"""`lesa write`: tags of `lesa tag` -> XMP sidecars, which photo programs read."""

from collections import Counter
from pathlib import Path

import click

from lesa.cli.options import PATH
from lesa.errors import LesaError
from lesa.progress import progress_bar


@click.command()
@click.argument("tags", type=PATH)
@click.option("--photos", type=PATH, default=Path(), help="Folder from which the paths of the photos start.")
@click.option("--root", default="AI", help="Keyword above all tags; `Auto|AI` has two levels.")
@click.option(
    "--naming", type=click.Choice(["full", "adobe"]), default="full", help="full: photo.jpg.xmp; adobe: photo.xmp."
)
@click.option("--dry-run", is_flag=True, help="Print the changes, but write nothing.")
@click.option(
    "--undo", is_flag=True, help="Remove the tags that `lesa write` wrote for the photos of TAGS, and nothing else."
)
def write(tags: Path, photos: Path, root: str, naming: str, dry_run: bool, undo: bool) -> None:
    """Write tags into XMP sidecars beside the photos. The owner's keywords are kept, and the photos are not changed.

    TAGS is the JSON Lines file of `lesa tag`. Another call replaces the tags of the call before.

    \b
    Example:
      lesa write tags.jsonl --dry-run
    """
    from lesa.sidecar import write_tags
    from lesa.tag_files import read_tags

    tagged = read_tags(tags, photos)
    kinds: Counter[str] = Counter()
    with progress_bar("write", len(tagged)) as advance:
        for done, change in enumerate(write_tags(tagged, root, naming, undo, dry_run), start=1):
            advance(done)
            if isinstance(change, LesaError):
                kinds["refused"] += 1
                click.echo(f"refused: {change}", err=True)
                continue
            kinds[change.kind] += 1
            if dry_run and change.kind != "unchanged":
                name = click.format_filename(change.sidecar)
                click.echo("\n  ".join([f"{name} ({change.kind})", *change.differences()]))
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items())) or "no photos"
    click.echo(f"{'would be: ' if dry_run else ''}{counts}")
    if kinds["refused"]:
        raise LesaError(f"{kinds['refused']:,} of {len(tagged):,} sidecars were not changed, see above")
