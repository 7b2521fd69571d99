"""The paper's experiments (data set, metrics, recipe), and the plan of one experiment on a user's files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesa.errors import LesaError, did_you_mean
from lesa.files import read_json
from lesa.learn.datasets import nus_wide, open_images
from lesa.learn.datasets.dataset import Dataset, read_dataset
from lesa.learn.datasets.official_files import SourceFile, missing_files
from lesa.learn.recipe import Recipe, make_recipe, merge, parse_override


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper."""

    data_set: str
    """Name of the data set in the published rows and among the recipes."""
    files: tuple[SourceFile, ...]
    """The official files."""
    photos: tuple[int, ...]
    """Official numbers of training, validation and test photos (multi-label: with the photos without a label)."""
    labels: tuple[int, int]
    """Numbers of seen and unseen labels."""
    k: tuple[int, ...]
    """K of precision, recall and F1."""
    tasks: dict[str, str]
    """Our task -> the task of the published rows."""


NUS_WIDE = Experiment(
    data_set="nus-wide",
    files=nus_wide.FILES,
    photos=(156_789, 5_000, 107_859),
    labels=(925, 81),
    k=(3, 5),
    tasks={"ZSL": "ZSL", "GZSL": "GZSL"},
)
OPEN_IMAGES = Experiment(
    data_set="open-images",
    files=open_images.FILES,
    photos=tuple(open_images.OFFICIAL_PHOTOS.values()),
    labels=(7_186, 400),
    k=(10, 20),
    tasks={"ZSL": "ZSL", "GZSL": "GZSL", "seen": "multi-label"},
)
EXPERIMENTS = {
    "nus-wide": NUS_WIDE,
    "nus-wide-clean": replace(NUS_WIDE, labels=(895, 81)),
    "nus-wide-multi-label": replace(
        NUS_WIDE, files=nus_wide.MULTI_LABEL_FILES, labels=(81, 0), tasks={"seen": "multi-label"}
    ),
    "open-images": OPEN_IMAGES,
}


@dataclass(frozen=True)
class Plan:
    """One reproduction: the experiment, the input files and the output folder."""

    experiment: str
    """A name in `EXPERIMENTS`."""
    root: Path
    """Folder of the official files."""
    photos: Path
    """Folder of the photos."""
    vectors: str
    """Source of the label vectors (in the paper: GloVe, 300-d)."""
    out: Path
    """Folder of all results."""
    backbone: str = "vgg19"
    """The backbone (in the paper: `vgg19`)."""
    weights: Path | None = None
    """Weights file of `vgg19`."""
    overrides: tuple[str, ...] = ()
    """`key=value` changes of the recipe."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse an unknown experiment, and overrides of keys that the plan sets."""
        if self.experiment not in EXPERIMENTS:
            known = did_you_mean(self.experiment, EXPERIMENTS)
            raise LesaError(f"no experiment is called {self.experiment!r}; {known}")
        for override in self.overrides:
            for key in ("dataset", "regions", "vectors", "recipe"):
                if key in parse_override(override):
                    raise LesaError(
                        f"{override!r}: `{key}` follows from the experiment and its options, not from --set"
                    )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide the result, for `plan.json`. A later call with other settings is refused."""
        return {
            "experiment": self.experiment,
            "root": str(self.root.resolve()),
            "photos": str(self.photos.resolve()),
            "vectors": self.vectors,
            "backbone": self.backbone,
            "weights": str(self.weights.resolve()) if self.weights else None,
            "overrides": sorted(self.overrides),
        }

    @property
    def paper(self) -> Experiment:
        """The experiment as the paper describes it."""
        return EXPERIMENTS[self.experiment]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the training, with the folders of this plan.

        Raises:
            LesaError: the overrides make no sense.
        """
        out = self.out.resolve()
        places = {"dataset": str(out / "dataset"), "regions": str(out / "regions")}
        settings = {**places, "vectors": [self.vectors], "recipe": self.paper.data_set}
        for override in self.overrides:
            merge(settings, parse_override(override))
        return make_recipe(settings, where=self.experiment)


def missing_inputs(plan: Plan) -> list[str]:
    """Return one line for each file or folder that the plan needs and that does not exist."""
    done = (plan.out / "dataset" / "dataset.json").exists()
    files = [] if done else missing_files(plan.root, plan.paper.files)
    lines = [f"{plan.root / file.name}: {file.distributed}" for file in files]
    if not plan.photos.is_dir() or not any(plan.photos.iterdir()):
        lines.append(f"{plan.photos}: the folder of the photos (--photos)")
    if plan.backbone == "vgg19" and not weights_there(plan.weights):
        lines.append(
            f"{plan.weights or 'weights of VGG-19'}: torchvision's vgg19 state dict, or TF-slim's vgg_19.ckpt "
            "(the paper's) (--weights)"
        )
    if not plan.vectors.startswith("text:") and not Path(plan.vectors).is_file():
        lines.append(f"{plan.vectors}: GloVe's 300-d text file, glove.6B.zip, https://nlp.stanford.edu/projects/glove/")
    return lines


def weights_there(weights: Path | None) -> bool:
    """Tell whether the weights exist. A TensorFlow checkpoint of version 2 is the common prefix of two files."""
    return weights is not None and (weights.exists() or Path(f"{weights}.index").exists())


def prepared_dataset(plan: Plan) -> Dataset | None:
    """Return the prepared data set; None if it is not prepared yet."""
    folder = plan.out / "dataset"
    return read_dataset(folder) if (folder / "dataset.json").exists() else None


def refuse_another_plan(plan: Plan) -> None:
    """Refuse an output folder that was begun with other settings.

    Raises:
        LesaError: the folder has other settings; the message names one that differs.
    """
    path = plan.out / "plan.json"
    if not path.exists():
        return
    begun = read_json(path)
    for key, value in plan.settings.items():
        if begun.get(key) != value:
            raise LesaError(f"{plan.out} was begun with {key} {begun.get(key)!r}, not {value!r}: give another folder")


def all_photos(dataset: Dataset) -> list[str]:
    """Return the photos of all splits."""
    return [photo for split in dataset.splits.values() for photo in split.photos]
