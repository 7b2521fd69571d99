"""Compare maps as evidence of a tag: cover the first regions of a map and measure the fall of the label's score.

    python benchmarks/evidence.py flickr8k.lesa photos --photos 150 [--fill mean] [--share 0.2]
    python benchmarks/evidence.py flickr8k.lesa photos --boxes benchmarks/evidence-boxes.json

Deletion covers the first fifth of the regions in the order of a map, with the blurred photo or its mean colour;
insertion shows only these regions and covers the rest. Both are done for the best tags of each photo among the bundle's
labels, or among those of `--labels FILE`, one per line. Controls: random regions (five draws), regions in the order of
their distance from the centre, and the last regions of the contribution. A label has the vector v; its winning code m
is g times the sum of the regions w[r], weighted with the attention alpha[m]. The maps:

attention            alpha[m,r]
contribution         alpha[m,r] g w[r].v           its sum is the code's product with v
region               w[r].v
cosine               w[r].v / |w[r]|
share of labels      softmax over the labels of t cosine, t the code's length
contrastive          contribution minus the mean of the other labels' contributions (each with its own winning code)
left out             the score minus the score without the region
..., 3 x 3           the sum of such a map over a region and its neighbours, because the regions of a network see
                     overlapping parts of the photo
occlusion            the fall of the score when only this region of the photo is covered: R runs of the graph

Prints a Markdown table: the fall of the score (for insertion: the rest of the score above that of the fully covered
photo), in standard deviations of the photo's scores over all labels, as mean and standard error over photos; and the
share of tags that are no longer among the photo's five best. The file of `--boxes` has the form
{photo: {word: [left, top, right, bottom]}}; with it the table has the number of maps whose greatest region has its
centre inside the box, and the share of the map inside the box.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lesa.codes import Codes, Floats, select, shifted
from lesa.files import read_lines
from lesa.graph import open_graph
from lesa.images import crop_box, list_photos, open_photo, to_pixels
from lesa.tagger import Tagger

MOVED = 0.5
"""The maps named `moved` are shifted by this part of a region down and right, as the front's 2 x 2 windows look."""
DRAWS, TAGS, BATCH = 5, 3, 32


def maps(codes: Codes, vectors_CE: Floats, c: int, selection: str, grid: tuple[int, int]) -> dict[str, Floats]:
    """Return every variant's map (R) of the label c."""
    by_code_MC = codes.codes_ME @ vectors_CE.T
    winner_C = by_code_MC.argmax(axis=0)
    region_RC = codes.regions_RE @ vectors_CE.T
    length_R = np.linalg.norm(codes.regions_RE, axis=1)
    sums_ME = codes.attention_MR @ codes.regions_RE
    gain_M = np.linalg.norm(codes.codes_ME, axis=1) / np.linalg.norm(sums_ME, axis=1)
    all_RC = (codes.attention_MR * gain_M[:, None])[winner_C].T * region_RC
    cosine_RC = region_RC / length_R[:, None]
    logits_RC = np.linalg.norm(codes.codes_ME[0]) * cosine_RC
    odds_RC = np.exp(logits_RC - logits_RC.max(axis=1, keepdims=True))
    others = (all_RC.sum(axis=1) - all_RC[:, c]) / max(1, all_RC.shape[1] - 1)
    by_name = {
        "attention": codes.attention_MR[winner_C[c]],
        "contribution": all_RC[:, c],
        "region": region_RC[:, c],
        "cosine": cosine_RC[:, c],
        "share of labels": odds_RC[:, c] / odds_RC.sum(axis=1),
        "contrastive": all_RC[:, c] - others,
        "left out": left_out(codes, sums_ME, vectors_CE[c], selection),
    }
    by_name |= {
        f"{name}, moved": shifted(by_name[name].reshape(grid), MOVED).ravel() for name in ("attention", "region")
    }
    chosen = ("attention", "contribution", "region", "left out")
    return by_name | {f"{name}, 3 x 3": around(by_name[name], grid) for name in chosen}


def around(map_R: Floats, grid: tuple[int, int]) -> Floats:
    """Return the sum over each region and its neighbours."""
    padded = np.pad(map_R.reshape(grid), 1)
    rows, columns = grid
    return sum(padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)).ravel()


def left_out(codes: Codes, sums_ME: Floats, vector_E: Floats, selection: str) -> Floats:
    """Return the fall of the score without each region. A prior, which no region gives, takes no part."""
    rest_MRE = sums_ME[:, None] - codes.attention_MR[:, :, None] * codes.regions_RE
    unit = bool(np.ptp(np.linalg.norm(codes.codes_ME, axis=1)) < 1e-3 * np.linalg.norm(codes.codes_ME[0]))
    if unit:
        rest_MRE *= np.linalg.norm(codes.codes_ME[0]) / np.linalg.norm(rest_MRE, axis=2, keepdims=True)
    else:
        rest_MRE /= (1 - codes.attention_MR)[:, :, None]
    whole_M = sums_ME @ vector_E
    if unit:
        whole_M *= np.linalg.norm(codes.codes_ME[0]) / np.linalg.norm(sums_ME, axis=1)
    return select(whole_M[:, None], selection) - select(rest_MRE @ vector_E, selection)


def cover(image: Image.Image, fill: str) -> Image.Image:
    """Return an image that covers the photo: its mean colour, or the blurred photo."""
    if fill == "mean":
        return Image.new("RGB", image.size, tuple(int(x) for x in np.asarray(image).mean(axis=(0, 1))))
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 12))


def masked(pixels: Floats, covered: Floats, regions_R: NDArray[np.bool_], grid: tuple[int, int]) -> Floats:
    """Return the pixels with the chosen regions covered."""
    high, wide = pixels.shape[1] // grid[0], pixels.shape[2] // grid[1]
    mask_HW = np.kron(regions_R.reshape(grid), np.ones((high, wide), bool))
    return np.where(mask_HW, covered, pixels)


def singles(pixels: Floats, covered: Floats, grid: tuple[int, int]) -> list[Floats]:
    """Return one copy of the pixels per region, with this region covered."""
    return [masked(pixels, covered, region_R, grid) for region_R in np.eye(grid[0] * grid[1], dtype=bool)]


def orders(by_name: dict[str, Floats], grid: tuple[int, int], seed: int) -> dict[str, NDArray[np.intp]]:
    """Return the order of the regions for each map and each control, the most important region first."""
    named = {name: np.argsort(-map_R, kind="stable") for name, map_R in by_name.items()}
    down, across = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    away = (down - (grid[0] - 1) / 2) ** 2 + (across - (grid[1] - 1) / 2) ** 2
    named["centre"] = np.argsort(away, kind="stable")
    named["coldest"] = np.argsort(by_name["contribution"], kind="stable")
    for draw in range(DRAWS):
        named[f"random {draw}"] = np.random.default_rng([seed, draw]).permutation(len(away))
    return named


class Scorer:
    """Scores of covered photos."""

    def __init__(self, tagger: Tagger, vectors_CE: Floats) -> None:
        self.run, self.vectors, self.selection = open_graph(tagger.bundle), vectors_CE, tagger.bundle.manifest.selection

    def __call__(self, pixels: list[Floats]) -> Floats:
        """Return the scores of all labels."""
        codes = [self.run(np.stack(pixels[i : i + BATCH]))[0] for i in range(0, len(pixels), BATCH)]
        return np.stack([select(each @ self.vectors.T, self.selection) for each in np.concatenate(codes)])


def delete(tagger: Tagger, photos: list[Path], fill: str, share: float, names: list[str] | None) -> None:
    """Print the table of deletion and insertion."""
    labels, manifest = tagger.labels(names), tagger.bundle.manifest
    scorer, rows = Scorer(tagger, labels.points_CE), {}
    count = round(share * manifest.grid[0] * manifest.grid[1])
    for number, photo in enumerate(photos):
        image = open_photo(photo)
        pixels, covered = (to_pixels(each, manifest.preprocessing) for each in (image, cover(image, fill)))
        codes = tagger.codes(photo)
        before_C = select(codes.codes_ME @ labels.points_CE.T, manifest.selection)
        best = np.argsort(-before_C)[:TAGS]
        fall_RC = before_C - scorer(singles(pixels, covered, manifest.grid))
        batch: dict[bytes, Floats] = {b"": covered}
        asked = []
        for c in best:
            by_name = maps(codes, labels.points_CE, c, manifest.selection, manifest.grid) | {"occlusion": fall_RC[:, c]}
            for name, order in orders(by_name, manifest.grid, number).items():
                chosen_R = np.zeros(len(order), bool)
                chosen_R[order[:count]] = True
                for test, regions_R in ("deletion", chosen_R), ("insertion", ~chosen_R):
                    key = regions_R.tobytes()
                    if key not in batch:
                        batch[key] = masked(pixels, covered, regions_R, manifest.grid)
                    asked.append(("random" if name.startswith("random") else name, test, int(c), key))
        after = dict(zip(batch, scorer(list(batch.values())), strict=True))
        spread = before_C.std()
        for name, test, c, key in asked:
            base = before_C[c] if test == "deletion" else after[b""][c]
            change = (base - after[key][c]) / spread * (1 if test == "deletion" else -1)
            left = (after[key] > after[key][c]).sum() >= 5
            rows.setdefault((name, test), {}).setdefault(number, []).append((change, left))
    print(f"{len(photos)} photos, {TAGS} tags each, {count} of {np.prod(manifest.grid)} regions, fill {fill}\n")
    print("| map | deletion: fall | leave the five best | insertion: remains |\n|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in rows):
        tests = (rows[name, test].values() for test in ("deletion", "insertion"))
        fall, remains = (np.array([np.mean(each, axis=0) for each in values]) for values in tests)
        error = [values[:, 0].std(ddof=1) / len(values) ** 0.5 for values in (fall, remains)]
        print(
            f"| {name} | {fall[:, 0].mean():.2f} ± {error[0]:.2f} | {100 * fall[:, 1].mean():.0f} % "
            f"| {remains[:, 0].mean():.2f} ± {error[1]:.2f} |"
        )


def point(tagger: Tagger, folder: Path, boxes: dict[str, dict[str, list[int]]]) -> None:
    """Print how often each map points into the object's box."""
    manifest, rows, area = tagger.bundle.manifest, {}, []
    own = tagger.labels().points_CE
    scorer = Scorer(tagger, own)
    for photo, words in boxes.items():
        codes, image = tagger.codes(folder / photo), open_photo(folder / photo)
        pixels, covered = (to_pixels(each, manifest.preprocessing) for each in (image, cover(image, "blur")))
        left, top, right, bottom = crop_box(codes.size, manifest.preprocessing)
        down, across = np.divmod(np.arange(manifest.grid[0] * manifest.grid[1]), manifest.grid[1])
        x_R = left + (across + 0.5) * (right - left) / manifest.grid[1]
        y_R = top + (down + 0.5) * (bottom - top) / manifest.grid[0]
        for word, box in words.items():
            inside_R = (box[0] <= x_R) & (x_R <= box[2]) & (box[1] <= y_R) & (y_R <= box[3])
            area.append(inside_R.mean())
            vectors = np.concatenate([tagger.labels([word]).points_CE, own])
            scorer.vectors = vectors[:1]
            before = select(codes.codes_ME @ vectors[:1].T, manifest.selection)
            by_name = maps(codes, vectors, 0, manifest.selection, manifest.grid)
            by_name["occlusion"] = (before - scorer(singles(pixels, covered, manifest.grid)))[:, 0]
            away = (down - (manifest.grid[0] - 1) / 2) ** 2 + (across - (manifest.grid[1] - 1) / 2) ** 2
            by_name["centre"] = 1 / (1 + away)
            for name, map_R in by_name.items():
                positive_R = map_R.clip(min=0)
                share = positive_R[inside_R].sum() / positive_R.sum()
                rows.setdefault(name, []).append((inside_R[map_R.argmax()], share))
    print(f"{len(area)} objects; a region at random is inside {100 * np.mean(area):.0f} % of the time\n")
    print("| map | greatest region inside | share of the map inside |\n|---|---|---|")
    for name, values in rows.items():
        hits, inside = np.array(values, float).T
        print(f"| {name} | {hits.sum():.0f} of {len(hits)} | {100 * inside.mean():.0f} % |")


def main() -> None:
    """Run on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", type=Path, help="photos below the folder, one per line; all if not given")
    parser.add_argument("--photos", type=int, default=150)
    parser.add_argument("--fill", choices=["blur", "mean"], default="blur")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--labels", type=Path, help="labels to choose tags from; the bundle's own if not given")
    parser.add_argument("--boxes", type=Path)
    given = parser.parse_args()
    tagger = Tagger(given.bundle)
    if given.boxes:
        point(tagger, given.folder, json.loads(given.boxes.read_text()))
    else:
        names = given.names.read_text().split() if given.names else list_photos(given.folder)
        photos = [given.folder / name for name in names[: given.photos]]
        delete(tagger, photos, given.fill, given.share, read_lines(given.labels) if given.labels else None)


if __name__ == "__main__":
    main()
