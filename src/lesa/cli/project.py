"""`lesa project`: region features -> fewer region features."""

from pathlib import Path

import click

from lesa.cli.options import PATH, out_option
from lesa.progress import progress_bar


@click.command()
@click.argument("store", type=PATH)
@out_option("Region store to write.")
@click.option("--size", default=512, help="Number of features to keep.")
@click.option(
    "--fit-on", type=PATH, help="Data set: learn the projection from its training photos; from all photos if not given."
)
def project(store: Path, out: Path, size: int, fit_on: Path | None) -> None:
    """Reduce region features to fewer features, by the principal components of the training photos' regions.

    \b
    Example:
      lesa project regions/flickr8k -o regions/flickr8k-512 --size 512 --fit-on prepared/flickr8k
    """
    from lesa.learn.datasets.dataset import read_dataset
    from lesa.learn.regions.projection import project as project_regions
    from lesa.learn.regions.store import RegionStore

    source = RegionStore.open(store)
    names = read_dataset(fit_on).split("train", source.failed()).photos if fit_on else source.names
    with progress_bar("project", None) as advance:
        kept = project_regions(source, out, size, names, progress=lambda done, total: advance(done, total))
    click.echo(f"{len(source)} photos with {size} features per region ({100 * kept:.2f} % of the variance) in {out}")
