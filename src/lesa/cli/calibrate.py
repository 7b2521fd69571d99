"""`lesa calibrate`: a bundle and labelled photos -> the bundle with probabilities, and their reliability."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lesa.cli.options import PATH, one_thread, vectors_option
from lesa.cli.tables import print_table
from lesa.errors import LesaError, did_you_mean
from lesa.files import read_lines
from lesa.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lesa.annotations import Row
    from lesa.calibration import Calibration
    from lesa.tagger import Tagger

    Known = tuple[list[Path], tuple[str, ...], NDArray[np.int8]]
    """Photos, labels, and targets (photos x labels)."""

HEADER = ("labels", "", "ECE", "ECE of the best 5", "Brier", "log loss")
METRICS = {"ece": "{:.2%}", "ece_best": "{:.1%}", "brier": "{:.4f}", "log_loss": "{:.4f}"}
ORDERS = {"scores": "by score", "seen bias": "with the seen bias", "calibrated": "by probability"}


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--data", type=PATH, required=True, help="Labelled photos: a .csv or .jsonl file, or a prepared data set's folder."
)
@click.option("--photos", type=PATH, help="Folder of the photos; the folder of the .csv or .jsonl file if not given.")
@click.option(
    "--labels", type=PATH, help="File of all annotated labels, one per line; the bundle's labels if not given."
)
@click.option("--split", help="Use one split; default: `validation` of a data set, all rows of a file.")
@vectors_option
@click.option("-o", "--out", type=PATH, help="The bundle to write; NAME-calibrated.lesa beside BUNDLE if not given.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--dry-run", is_flag=True, help="Print the report, but write nothing.")
def calibrate(
    bundle: Path,
    data: Path,
    photos: Path | None,
    labels: Path | None,
    split: str | None,
    vectors: tuple[str, ...],
    out: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Fit probabilities to scores, on a few dozen labelled photos that are not training photos.

    The file has one row per photo: `photo,labels` with labels such as `dog;park`. Labels that are not in the row are
    absent. But if any row contains `-cat` (JSON Lines: `absent`), labels that are not in a row are unknown. With the
    new bundle, `lesa tag` gives probabilities, orders tags by them, and uses --threshold as a probability.

    \b
    Example:
      lesa calibrate mine.lesa --data photos/labels.csv
      lesa calibrate flickr8k.lesa --data prepared/flickr8k --photos Images --dry-run
    """
    one_thread()
    from lesa.bundle import with_calibration
    from lesa.fit_calibration import fit_calibration, score_photos
    from lesa.tagger import Tagger

    out = out or bundle.with_name(f"{bundle.stem}-calibrated.lesa")
    if out.exists() and not force and not dry_run:
        raise LesaError(f"{out} exists: name another file with -o, or say --force to replace it")
    tagger = Tagger(bundle, vectors)
    files, names, targets_NC = _read_known(tagger, data, photos, labels, split)
    with progress_bar("calibrate", len(files)) as advance:
        labelled = score_photos(
            tagger, files, targets_NC, names, lambda reason: click.echo(f"lesa: {reason}", err=True), advance
        )
    calibration = fit_calibration(labelled)
    _print_calibration(bundle, calibration)
    if not dry_run:
        with_calibration(bundle, calibration, out)
        click.echo(f"wrote {out}")


def _read_known(tagger: "Tagger", data: Path, photos: Path | None, labels: Path | None, split: str | None) -> "Known":
    """Return photos, labels and targets of a file of labels or of a prepared data set.

    Raises:
        LesaError: the data cannot be read, or they do not fit the bundle or the options.
    """
    if not data.is_dir():
        asked = read_lines(labels) if labels else tagger.bundle.manifest.tags
        return _from_rows(
            tagger, data, photos or data.parent, tuple(dict.fromkeys(map(tagger.canonical, asked))), split
        )
    if labels or not photos:
        raise LesaError(f"{data} is a data set, which has its own labels: give the photos' folder, and no --labels")
    return _from_dataset(data, photos, split or "validation")


def _from_rows(tagger: "Tagger", data: Path, photos: Path, names: tuple[str, ...], split: str | None) -> "Known":
    import numpy as np

    from lesa.annotations import read_rows, value_of_the_rest

    every = read_rows(data)
    rows = [row for row in every if split in (None, row.split)]
    if not rows:
        splits = sorted({row.split for row in every if row.split})
        raise LesaError(f"{data} has no photo of the split {split!r}: {did_you_mean(str(split), splits)}")
    columns = {name: column for column, name in enumerate(names)}
    targets_NC = np.full((len(rows), len(names)), value_of_the_rest(rows), np.int8)
    for targets_C, row in zip(targets_NC, rows, strict=True):
        targets_C[_columns(tagger, row, row.present, columns)] = 1
        targets_C[_columns(tagger, row, row.absent, columns)] = -1
    return [photos / row.photo for row in rows], names, targets_NC


def _columns(tagger: "Tagger", row: "Row", labels: frozenset[str], columns: Mapping[str, int]) -> list[int]:
    by_name = {tagger.canonical(label): label for label in labels}
    if unknown := [label for name, label in by_name.items() if name not in columns]:
        hint = did_you_mean(min(unknown), columns)
        raise LesaError(
            f"{row.where}: {min(unknown)!r} is not one of the labels; {hint}. "
            "Name all labels with --labels to add others"
        )
    return [columns[name] for name in by_name]


def _from_dataset(folder: Path, photos: Path, split: str) -> "Known":
    # Data sets need SciPy, from the extra `learn`. A file of labels does not.
    from lesa.learn.datasets.dataset import read_dataset

    dataset = read_dataset(folder)
    chosen = dataset.split(split)
    return [photos / name for name in chosen.photos], dataset.vocabulary.names, chosen.targets.dense()


def _print_calibration(bundle: Path, calibration: "Calibration") -> None:
    """Print the reliability of the probabilities before and after, the effect of the seen bias, and the threshold."""
    report = calibration.report
    title = (
        f"{bundle}: {report['photos']} photos, {report['seen_labels']} seen and "
        f"{report['unseen_labels']} unseen labels, {report['present_labels_per_photo']:.2f} present per photo"
    )
    print_table(title, HEADER, [row for kind in report["after"] for row in _rows(kind, report)])
    click.echo(report["measured"])
    click.echo(f"map: {report['method']}")
    f1 = ", ".join(f"{text} {report['f1_at_3'][name]:.1f} %" for name, text in ORDERS.items())
    click.echo(f"F1@3 over all labels, held-out photos: {f1}")
    click.echo(f"threshold of `lesa tag`: probability {calibration.threshold:g} ({report['threshold']})")


def _rows(kind: str, report: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    return [
        (
            kind if when == "before" else "",
            when,
            *(form.format(report[when][kind][name]) for name, form in METRICS.items()),
        )
        for when in ("before", "after")
    ]
