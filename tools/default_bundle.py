"""The last step of the default bundle: calibrated, with its model card, as one file (`tools/default_bundle.sh`).

    python tools/default_bundle.py build/default Images docs/default-bundle.md src/lesa/default.lesa

The map from scores to probabilities is fitted with the head that never saw a fifth of the words, on validation photos:
so it knows how much lower unseen labels score. It has no biases of single labels: how often dogs are photographed
differs from one collection to the next.
"""

import argparse
import json
import re
from pathlib import Path

from lesa.bundle import CALIBRATION, CARD, GRAPH, LABELS, open_bundle, pack_labels, write_bundle
from lesa.calibration import Calibration
from lesa.errors import LesaError
from lesa.fit_calibration import fit_calibration, score_photos
from lesa.learn.datasets.dataset import read_dataset
from lesa.tagger import Tagger


def calibration_of(bundle: Path, dataset: Path, photos: Path) -> Calibration:
    """Return the map that suits a bundle's scores on the validation photos of a data set."""
    known = read_dataset(dataset)
    validation = known.split("validation")
    files = [photos / name for name in validation.photos]
    labelled = score_photos(Tagger(bundle), files, validation.targets.dense(), known.vocabulary.names, failed=print)
    return fit_calibration(labelled, strengths=())


def main() -> None:
    """Calibrate, and write head, calibration and model card as one bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "photos", "card", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    calibration = calibration_of(given.folder / "head-held-out.lesa", given.folder / "words-2-held-out", given.photos)
    print(json.dumps(calibration.to_dict(), indent=1))
    card = given.card.read_text(encoding="utf-8")
    if unfilled := re.findall("@[A-Z]+@", card):
        raise LesaError(f"{given.card} is not filled in: {', '.join(unfilled)}")
    bundle = open_bundle(given.folder / "head-all.lesa")
    members = {
        GRAPH: bundle.graph,
        LABELS: pack_labels(bundle.vectors_CE, bundle.space.means_by_source, bits=8),
        CARD: card.encode(),
        CALIBRATION: json.dumps(calibration.to_dict(), indent=2).encode(),
    }
    write_bundle(given.out, bundle.manifest, members)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
