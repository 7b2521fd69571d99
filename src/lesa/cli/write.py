"""`lesa write`: the tags of `lesa tag` into XMP sidecars, where photo programs read them."""

from collections import Counter
from pathlib import Path

import click

from lesa.errors import LesaError
from lesa.progress import progress_bar

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("tags", type=PATH)
@click.option("--photos", type=PATH, default=Path(), help="Folder that the photos' paths start from.")
@click.option("--root", default="AI", help="Keyword above all tags; `Auto|AI` for two levels.")
@click.option(
    "--naming", type=click.Choice(["full", "adobe"]), default="full", help="full: photo.jpg.xmp; adobe: photo.xmp."
)
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would change.")
@click.option("--undo", is_flag=True, help="Take out what was written for the photos of TAGS, and nothing else.")
def write(tags: Path, photos: Path, root: str, naming: str, dry_run: bool, undo: bool) -> None:
    """Tags into XMP sidecars beside the photos; the owner's keywords stay, the photos are not touched.

    TAGS is the JSON Lines file of `lesa tag`. Writing again replaces what was written before.

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
        raise LesaError(f"{kinds['refused']:,} of {len(tagged):,} sidecars were left as they are, see above")
