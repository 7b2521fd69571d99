"""The paper's experiments: which data set, figures and recipe, and a plan of one of them on a user's files."""

from dataclasses import dataclass, replace
from pathlib import Path

from lesa.errors import LesaError, did_you_mean
from lesa.learn.datasets import Dataset, nus_wide, open_images, read_dataset
from lesa.learn.datasets.sources import SourceFile, missing_files
from lesa.learn.recipe import Recipe, make_recipe, merge, parse_override


@dataclass(frozen=True)
class Experiment:
    """What the paper did on a data set."""

    data_set: str
    """Name of the data set, as published rows and recipes call it."""
    files: tuple[SourceFile, ...]
    """The official files."""
    photos: tuple[int, int, int]
    """Official numbers of training, validation and test photos."""
    labels: tuple[int, int]
    """Seen and unseen labels."""
    k: tuple[int, ...]
    """K of precision, recall and F1."""
    tasks: dict[str, str]
    """Our task -> the task that published rows stand under."""


EXPERIMENTS = {
    "nus-wide": Experiment(
        "nus-wide",
        nus_wide.FILES,
        (156_789, 5_000, 107_859),
        (925, 81),
        (3, 5),
        {"ZSL": "ZSL", "GZSL": "GZSL"},
    ),
    "nus-wide-multi-label": Experiment(
        "nus-wide",
        nus_wide.MULTI_LABEL_FILES,
        (156_789, 5_000, 107_859),
        (81, 0),
        (3, 5),
        {"seen": "multi-label"},
    ),
    "open-images": Experiment(
        "open-images",
        open_images.FILES,
        (5_500_000, 41_620, 125_436),
        (7_186, 400),
        (10, 20),
        {"ZSL": "ZSL", "GZSL": "GZSL", "seen": "multi-label"},
    ),
}
EXPERIMENTS["nus-wide-clean"] = replace(EXPERIMENTS["nus-wide"], labels=(895, 81))


@dataclass(frozen=True)
class Plan:
    """One reproduction: what is reproduced, from which files, into which folder."""

    experiment: str
    """A name in `EXPERIMENTS`."""
    root: Path
    """Folder of the official files."""
    photos: Path
    """Folder of the photos."""
    vectors: str
    """Source of the label vectors (the paper's: GloVe, 300-d)."""
    out: Path
    """Folder of everything that is made."""
    backbone: str = "vgg19"
    """The backbone (the paper's: `vgg19`)."""
    weights: Path | None = None
    """Weights file of `vgg19`."""
    overrides: tuple[str, ...] = ()
    """`key=value` changes of the recipe."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse an unknown experiment."""
        if self.experiment not in EXPERIMENTS:
            known = did_you_mean(self.experiment, EXPERIMENTS)
            raise LesaError(f"no experiment is called {self.experiment!r}; {known}")

    @property
    def what(self) -> Experiment:
        """The experiment."""
        return EXPERIMENTS[self.experiment]

    @property
    def recipe(self) -> Recipe:
        """The training's recipe, on the folders of this plan."""
        places = {"dataset": str(self.out / "dataset"), "regions": str(self.out / "regions")}
        settings = {**places, "vectors": [self.vectors], "recipe": self.what.data_set}
        for override in self.overrides:
            merge(settings, parse_override(override))
        return make_recipe(settings, where=self.experiment)


def missing(plan: Plan) -> list[str]:
    """Return a line for each thing that the plan needs and that is not there."""
    files = [] if prepared(plan) else missing_files(plan.root, plan.what.files)
    lines = [f"{plan.root / file.name}: {file.distributed}" for file in files]
    if not plan.photos.is_dir():
        lines.append(f"{plan.photos}: the folder of the photos (--photos)")
    if plan.backbone == "vgg19" and not weights_there(plan.weights):
        lines.append(
            f"{plan.weights or 'weights of VGG-19'}: torchvision's vgg19 state dict, or TF-slim's vgg_19.ckpt "
            "(the paper's) (--weights)"
        )
    if not plan.vectors.startswith("text:") and not Path(plan.vectors).exists():
        lines.append(f"{plan.vectors}: GloVe's 300-d text file, glove.6B.zip, https://nlp.stanford.edu/projects/glove/")
    return lines


def weights_there(weights: Path | None) -> bool:
    """Tell whether a weights file is there; a TensorFlow checkpoint of the second version is a prefix of two files."""
    return weights is not None and (weights.exists() or Path(f"{weights}.index").exists())


def prepared(plan: Plan) -> Dataset | None:
    """Return the prepared data set, if it is there.

    Raises:
        LesaError: the folder holds another one.
    """
    folder = plan.out / "dataset"
    if not (folder / "dataset.json").exists():
        return None
    dataset = read_dataset(folder)
    if dataset.name != plan.experiment:
        raise LesaError(f"{folder} holds {dataset.name!r}, not {plan.experiment!r}: choose another output folder")
    return dataset


def all_photos(dataset: Dataset) -> list[str]:
    """Return the photos of all splits."""
    return [photo for split in dataset.splits.values() for photo in split.photos]
