"""The last step of `tools/default_bundle.sh`: calibrate the default bundle and write it, with its model card.

    python tools/default_bundle.py build/default Images docs/default-bundle.md src/lesa/default.lesa

The map from scores to probabilities is fitted on validation photos, with the head that was trained without a fifth of
the words. So it learns how much lower unseen labels score. It has no biases of single labels, because the frequency of
a label, such as dogs, differs between collections.
"""

import argparse
import json
import re
from pathlib import Path

from lesa.bundle import CALIBRATION, CARD, GRAPH, LABEL_MAP, LABELS, open_bundle, pack_labels, write_bundle
from lesa.calibration import Calibration
from lesa.errors import LesaError
from lesa.fit_calibration import fit_calibration, score_photos
from lesa.learn.datasets.dataset import read_dataset
from lesa.tagger import Tagger


def calibration_of(bundle: Path, dataset: Path, photos: Path) -> Calibration:
    """Return the calibration of a bundle, fitted on the validation photos of a data set."""
    data = read_dataset(dataset)
    validation = data.split("validation")
    files = [photos / name for name in validation.photos]
    labelled = score_photos(Tagger(bundle), files, validation.targets.dense(), data.vocabulary.names, failed=print)
    return fit_calibration(labelled, strengths=())


def main() -> None:
    """Fit the calibration, and write head, calibration and model card as one bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "photos", "card", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    calibration = calibration_of(given.folder / "head-held-out.lesa", given.folder / "words-held-out", given.photos)
    print(json.dumps(calibration.to_dict(), indent=1))
    card = given.card.read_text(encoding="utf-8")
    if unfilled := re.findall("@[A-Z]+@", card):
        raise LesaError(f"{given.card} has empty fields: fill in {', '.join(unfilled)}")
    bundle = open_bundle(given.folder / "head-all.lesa")
    if bundle.label_map is None:
        raise LesaError(f"{bundle.path} has no label map: export a head of configs/default.toml")
    members = {
        GRAPH: bundle.graph,
        LABELS: pack_labels(bundle.vectors_CE, bundle.space.means_by_source, bits=8),
        LABEL_MAP: bundle.label_map.to_bytes(half=True),
        CARD: card.encode(),
        CALIBRATION: json.dumps(calibration.to_dict(), indent=2).encode(),
    }
    write_bundle(given.out, bundle.manifest, members)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
