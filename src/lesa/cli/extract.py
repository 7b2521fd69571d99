"""`lesa extract`: photos -> region features."""

from collections.abc import Sequence
from pathlib import Path

import click

from lesa.cli.options import PATH
from lesa.errors import LesaError
from lesa.progress import progress_bar


@click.command()
@click.argument("photos", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Region store to write, or to go on with.")
@click.option("--backbone", required=True, help="`hf:NAME`, `hf:FOLDER` or `vgg19`.")
@click.option("--weights", type=PATH, help="Weights file of `vgg19` (torchvision's, or a TF-slim checkpoint).")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the backbone: output_stride=16.")
@click.option("--fit", type=click.Choice(["crop", "squash"]), help="Centre crop, or the whole photo squashed.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, help="Photos a batch.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` (an ONNX graph) or `cuda` (PyTorch)."
)
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
    """Photos -> region features, by any backbone; resumed where it stopped, broken photos listed and skipped.

    \b
    Example:
      lesa extract photos -o features/mine --backbone hf:google/mobilenet_v2_1.0_224 --fit squash
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
    if summary.failed:
        click.echo(f"the failed photos and why: {out / 'failed.jsonl'}", err=True)


def _parse_options(options: Sequence[str]) -> dict[str, str | int]:
    """Turn `KEY=VALUE` options into a mapping; whole numbers become numbers."""
    parsed: dict[str, str | int] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise LesaError(f"--option {option!r}: expected KEY=VALUE, such as output_stride=16")
        parsed[key] = int(value) if value.lstrip("-").isdigit() else value
    return parsed
