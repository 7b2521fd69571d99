"""A small tree in the exact format of Open Images V4 (2018_04), of real labels and made-up photos and annotations."""

import csv
import random
from pathlib import Path

from PIL import Image

DESCRIPTIONS = {
    "/m/0119x1zy": "Bun",
    "/m/011_6p": "Kazoo",
    "/m/0124h9": "Poinsettia",
    "/m/0156sn": "Ball",
    "/m/018xm": "Ball",
    "/m/01_097": "Airmail",
    "/m/010xc": "Aspartame",
    "/m/01c_0l": "Ducks, geese and swans",
    "/m/01yrx": "Cat",
    "/m/02wvth": 'Fiat 500 "topolino"',
    "/m/03hgsf0": "Lemon, lime and bitters",
    "/m/06q_t_": "Bun",
    "/m/07j7r": "Tree",
    "/m/09g7533": "Poinsettia",
    "/m/0bt9lr": "Dog",
    "/m/0k4j": "Car",
}
OTHERS = ("/m/09g7533", "/m/02wvth", "/m/01_097", "/m/011_6p", "/m/03hgsf0")
"""The annotated labels that are not trainable, by number of test photos, most first; some are on equally many."""
TRAINABLE = tuple(mid for mid in DESCRIPTIONS if mid not in OTHERS and mid != "/m/010xc")
IMAGE_COLUMNS = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
)
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def build_open_images(root: Path, photos: int = 30, seed: int = 0, with_photos: bool = False) -> None:
    """Write the official files below `root/2018_04`: 60 % of the photos train, 20 % validation, 20 % test.

    Every photo has a present trainable label. `with_photos` writes small JPEGs as `root/train/<id>.jpg` and so on.
    """
    draw = random.Random(seed)
    official = root / "2018_04"
    for split, share in SHARES.items():
        ids = sorted(f"{draw.getrandbits(64):016x}" for _ in range(max(1, round(photos * share))))
        (official / split).mkdir(parents=True, exist_ok=True)
        lines = [line for number, image in enumerate(ids) for line in annotations(split, number, image, draw)]
        header = "ImageID,Source,LabelName,Confidence"
        path = official / split / f"{split}-annotations-human-imagelabels.csv"
        path.write_text("\n".join([header, *lines, ""]), encoding="utf-8", newline="")
        labelled = "-with-labels" if split == "train" else ""
        write_image_list(official / split / f"{split}-images{labelled}-with-rotation.csv", split, ids)
        for image in ids if with_photos else []:
            write_photo(root / split / f"{image}.jpg", draw)
    with (official / "class-descriptions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(DESCRIPTIONS.items())
    (official / "classes-trainable.txt").write_text("".join(f"{mid}\n" for mid in TRAINABLE), newline="")


def annotations(split: str, number: int, image: str, draw: random.Random) -> list[str]:
    """Return a photo's annotation lines; test photo n carries the k-th untrainable label if k divides n."""
    seen = draw.sample(TRAINABLE, 4)
    values = {mid: draw.randint(0, 1) for mid in seen} | {seen[0]: 1}
    if split == "test":
        values |= {mid: draw.randint(0, 1) for k, mid in enumerate(OTHERS, start=1) if number % k == 0}
    sources = ("verification", "crowdsource-verification")
    return [f"{image},{draw.choice(sources)},{mid},{value}" for mid, value in sorted(values.items())]


def write_image_list(path: Path, split: str, ids: list[str]) -> None:
    """Write an image list; titles hold what CSV must quote."""
    farm, page = "https://farm4.staticflickr.com/3075", "https://www.flickr.com/photos/somebody"
    license_and_author = ["https://creativecommons.org/licenses/by/2.0/", "https://www.flickr.com/people/somebody/"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(IMAGE_COLUMNS.split(","))
        for number, image in enumerate(ids):
            original = [image, split, f"{farm}/{number}_o.jpg", f"{page}/{number}", *license_and_author]
            title = ["Body, Some", f'A "title", {number}', "211079", "0Sad+xMj2ttXM1U8meEJ0A=="]
            writer.writerow([*original, *title, f"{farm}/{number}_z.jpg", "0.0"])


def write_photo(path: Path, draw: random.Random) -> None:
    """Write a small JPEG: smooth noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", (4, 3), draw.randbytes(36)).resize((64, 48)).save(path, "JPEG")
