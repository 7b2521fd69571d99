"""`lesa extract`: photos -> region features."""

from collections.abc import Sequence
from pathlib import Path

import click

from lesa.cli.options import PATH, device_option, out_option
from lesa.errors import LesaError
from lesa.progress import progress_bar


@click.command()
@click.argument("photos", type=PATH)
@out_option("Region store to write; photos in it are not read again.")
@click.option("--backbone", required=True, help="`hf:NAME`, `hf:FOLDER` or `vgg19`.")
@click.option("--weights", type=PATH, help="Weights file of `vgg19` (from torchvision, or a TF-slim checkpoint).")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the backbone: output_stride=16."
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "squash"]),
    help="`crop`: the centre; `squash`: the whole photo, squeezed to a square.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, help="Number of photos per batch.")
@device_option
def extract(
    photos: Path,
    out: Path,
    backbone: str,
    weights: Path | None,
    options: tuple[str, ...],
    fit: str | None,
    batch_size: int,
    device: str,
) -> None:
    """Compute the region features of photos with any backbone.

    The same command continues where it stopped. Broken photos are skipped and listed. `cpu` runs the backbone as an
    ONNX graph, `cuda` with PyTorch.

    \b
    Example:
      lesa extract photos -o regions/mine --backbone hf:google/mobilenet_v2_1.0_224 --fit squash
    """
    from lesa.images import list_photos
    from lesa.learn.regions.backbones import load_backbone
    from lesa.learn.regions.extract import extract as extract_regions

    names = list_photos(photos)
    network = load_backbone(backbone, _parse_options(options), weights=weights, fit=fit)
    with progress_bar("extract", len(names)) as advance:
        summary = extract_regions(
            photos, names, out, network, device=device, batch_size=batch_size, progress=lambda done, *_: advance(done)
        )
    click.echo(f"{summary.done} photos in {out}, {summary.failed} failed")
    kept = network.classes if isinstance(network.classes, str) else f"{len(network.classes.names):,} kept"
    click.echo(f"classes that the backbone knows by name: {kept}")
    if summary.failed:
        click.echo(f"the failed photos and why: {out / 'failed.jsonl'}", err=True)


def _parse_options(options: Sequence[str]) -> dict[str, str | int]:
    """Return `KEY=VALUE` options as a mapping; whole numbers become numbers."""
    parsed: dict[str, str | int] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise LesaError(f"--option {option!r}: expected KEY=VALUE, such as output_stride=16")
        parsed[key] = int(value) if value.lstrip("-").isdigit() else value
    return parsed
