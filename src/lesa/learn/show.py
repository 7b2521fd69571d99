"""Pictures of a run: photos -> regions -> the best labels, each with the map of the attention that it chose."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lesa.codes import shifted
from lesa.drawing import Tag, sheet
from lesa.errors import LesaError
from lesa.files import replacing
from lesa.images import crop_box, open_photo
from lesa.labels import Vocabulary
from lesa.learn.model import WITH_ATTENTIONS, Output
from lesa.learn.regions.projection import Extractor
from lesa.learn.run import Run, load_model
from lesa.pictures import free_name


def show_photos(
    run: Run, photos: Sequence[Path], out: Path, *, top: int = 4, regions: Path | str | None = None
) -> Iterator[tuple[Path, Path | LesaError]]:
    """Draw one PNG per photo and yield (photo, its picture); a photo that cannot be shown yields the reason instead.

    Args:
        run: the trained run.
        photos: image files.
        out: the folder of the pictures.
        top: how many seen and how many unseen labels are drawn.
        regions: the store that says how photos become regions, if it is not where the recipe says.
    """
    extractor = Extractor.from_store(regions or run.recipe.regions)
    model = load_model(run)
    if run.recipe.model.kind not in WITH_ATTENTIONS:
        raise LesaError(f"{run.folder} holds a {run.recipe.model.kind!r} model, which has no attentions to show")
    vectors_CE = torch.from_numpy(run.vectors_CE)
    taken: set[str] = set()
    originals = {photo.resolve() for photo in photos}
    for photo in photos:
        try:
            image = open_photo(photo)
            with torch.inference_mode():
                output = model(torch.from_numpy(extractor.regions([photo])), vectors_CE)
        except LesaError as error:
            yield photo, error
            continue
        tags = [
            _moved(tag, extractor.grid, run.recipe.model.region_shift)
            for tag in _best_tags(output, run.vocabulary, top)
        ]
        picture = sheet(image, tags, grid=extractor.grid, box=crop_box(image.size, extractor.preprocessing))
        path = out / f"{free_name(photo.stem, taken)}.png"
        if path.resolve() in originals:
            yield photo, LesaError(f"its picture would replace the photo {path}: give another folder")
            continue
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")
        yield photo, path


def _best_tags(output: Output, vocabulary: Vocabulary, top: int) -> list[Tag]:
    """Return the first photo's `top` best seen and unseen labels with the attention map of the winning code."""
    scores_C = output.scores_BC[0]
    winner_C = output.winner_BC[0]
    attention_MR = output.attention_BMR[0]

    def best(columns: slice, seen: bool) -> list[Tag]:
        order: Tensor = scores_C[columns].argsort(descending=True, stable=True)[:top] + columns.start
        return [
            Tag(vocabulary.names[c], float(scores_C[c]), seen, attention_MR[winner_C[c]].numpy())
            for c in order.tolist()
        ]

    return best(vocabulary.seen_columns, True) + best(vocabulary.unseen_columns, False)


def _moved(tag: Tag, grid: tuple[int, int], region_shift: float) -> Tag:
    """Return a tag with its attention where the regions look."""
    return replace(tag, attention_R=shifted(tag.attention_R.reshape(grid), region_shift).ravel())
