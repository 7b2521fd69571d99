"""A small tree in NUS-WIDE's official format: CRLF line ends, backslashes, a tab after every tag's 0 or 1."""

from pathlib import Path

import numpy as np
from PIL import Image

# The official concepts; six are not tags.
CONCEPT_TEXT = (
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer coral "
    "cow dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses "
    "house lake leaf map military moon mountain nighttime ocean person plane plants police protest railroad "
    "rainbow reflection road rocks running sand sign sky snow soccer sports statue street sun sunset surf "
    "swimmers tattoo temple tiger tower town toy train tree valley vehicle water waterfall wedding whales window "
    "zebra "
)
CONCEPTS = CONCEPT_TEXT.split()
NO_TAGS = ["computer", "fire", "map", "swimmers", "tattoo", "whales"]
# The official tags that are the singular or plural of a concept.
TWIN_TEXT = (
    "trees flower building animals mountains bird boat car cloud rock reflections windows horse plant flag dogs "
    "cats sport toys streets houses signs cows bridges lakes bears maps waterfalls valleys gardens "
)
TWINS = TWIN_TEXT.split()
FOLDERS = ("actor", "administrative_assistant", "zebra")


def build_nus_wide(root: Path, photos: int = 24, seed: int = 0, with_photos: bool = False) -> None:
    """Write lists, tags and labels of a number of photos: 60 % training, 40 % test, every fourth without any concept.

    The tags are 1,000 as in the original, so 925 are not concepts; those that are neither concepts nor twins are made
    up. With `with_photos`, `root/Flickr` holds the photos as small JPEGs.
    """
    rng = np.random.default_rng(seed)
    names = [f"{FOLDERS[i * 3 // photos]}\\{i + 1:04d}_{2124494179 + i}.jpg" for i in range(photos)]
    made_up = [f"word{i:03d}" for i in range(1000 - len(TWINS) - len(CONCEPTS) + len(NO_TAGS))]
    tags = rng.permutation([*(name for name in CONCEPTS if name not in NO_TAGS), *TWINS, *made_up]).tolist()
    order = rng.permutation(photos)
    train = photos * 3 // 5
    write_lines(root / "ImageList" / "Imagelist.txt", names)
    write_lines(root / "ImageList" / "TrainImagelist.txt", [names[i] for i in order[:train]])
    write_lines(root / "ImageList" / "TestImagelist.txt", [names[i] for i in order[train:]])
    write_lines(root / "NUS_WID_Tags" / "TagList1k.txt", tags)
    write_lines(root / "ConceptsList" / "Concepts81.txt", CONCEPTS)

    tags_NT = rng.random((photos, len(tags))) < 0.01
    lines = ["".join(f"{int(value)}\t" for value in row) for row in tags_NT]
    write_lines(root / "NUS_WID_Tags" / "AllTags1k.txt", lines)
    labels_NC = rng.random((photos, len(CONCEPTS))) < 0.025
    labels_NC[np.arange(photos), rng.integers(len(CONCEPTS), size=photos)] = True
    labels_NC[::4] = False
    for name, column in zip(CONCEPTS, labels_NC.T, strict=True):
        write_lines(root / "Groundtruth" / "AllLabels" / f"Labels_{name}.txt", [str(int(value)) for value in column])
    if with_photos:
        for name in names:
            write_photo(root / "Flickr" / name.replace("\\", "/"), rng)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def write_photo(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    coarse.resize((64, 48), Image.Resampling.BICUBIC).save(path, quality=90)
