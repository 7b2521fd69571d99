"""The command line: a function a command. What needs PyTorch is imported inside its command."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import click

from lesa import __version__
from lesa.cli_calibrate import calibrate
from lesa.cli_prepare import prepare
from lesa.cli_search import index, search
from lesa.cli_serve import serve
from lesa.cli_show import show
from lesa.cli_tables import print_table
from lesa.cli_tag import export, tag
from lesa.cli_write import write
from lesa.errors import LesaError
from lesa.files import write_json
from lesa.progress import progress_bar

PATH = click.Path(path_type=Path)
EXAMPLES = {"max_content_width": 100, "help_option_names": ["-h", "--help"], "show_default": True}
RULES_OPTION = click.option(
    "--rules",
    multiple=True,
    default=["lesa"],
    help="Metric rules: lesa, biam_oi, miil, openimages, sklearn or all. May be repeated.",
)
K_OPTION = click.option(
    "-k", "--k", "ks", multiple=True, type=int, default=[3, 5], help="K of P, R and F1. May be repeated."
)


@click.group(context_settings=EXAMPLES)
@click.version_option(__version__, prog_name="lesa")
def cli() -> None:
    """Recognise every label in a photo, also labels that no training photo carried.

    \b
    photos -> regions             lesa extract, lesa project
    labels -> targets             lesa prepare
    regions x label vectors       lesa train
    scores -> tables, pictures    lesa evaluate, lesa show
    any method's scores -> tables lesa score
    methods and ablations         lesa compare, lesa ablate
    the paper's tables            lesa reproduce
    trained run -> bundle         lesa export
    scores -> probabilities       lesa calibrate
    bundle x photos -> tags       lesa tag, lesa show, lesa write
    words -> photos               lesa index, lesa search
    all of it on a local page     lesa serve
    everything on embedded data   lesa demo
    """


for command in (prepare, export, calibrate, tag, show, write, index, search, serve):
    cli.add_command(command)


@cli.command()
@click.argument("photos", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Region store to write, or to go on with.")
@click.option("--backbone", required=True, help="`hf:NAME`, `hf:FOLDER` or `vgg19`.")
@click.option("--weights", type=PATH, help="Weights file of `vgg19` (torchvision's, or a TF-slim checkpoint).")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the backbone: output_stride=16.")
@click.option("--fit", type=click.Choice(["crop", "squash"]), help="Centre crop, or the whole photo squashed.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, help="Photos a batch.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` (an ONNX graph) or `cuda` (PyTorch)."
)
def extract(
    photos: Path,
    out: Path,
    backbone: str,
    weights: Path | None,
    options: tuple[str, ...],
    fit: str | None,
    batch_size: int,
    device: str,
) -> None:
    """Photos -> region features, by any backbone; resumed where it stopped, broken photos listed and skipped.

    \b
    Example:
      lesa extract photos -o features/mine --backbone hf:google/mobilenet_v2_1.0_224 --fit squash
    """
    from lesa.images import list_photos
    from lesa.learn.backbones import load_backbone
    from lesa.learn.features import extract as extract_regions

    names = list_photos(photos)
    network = load_backbone(backbone, parse_options(options), weights=weights, fit=fit)
    with progress_bar("extract", len(names)) as advance:
        summary = extract_regions(
            photos, names, out, network, device=device, batch_size=batch_size, progress=lambda done, *_: advance(done)
        )
    click.echo(f"{summary.done} photos in {out}, {summary.failed} failed")
    if summary.failed:
        click.echo(f"the failed photos and why: {out / 'failed.jsonl'}", err=True)


@cli.command()
@click.argument("store", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Region store to write.")
@click.option("--size", default=512, help="Features that are kept.")
@click.option("--fit-on", type=PATH, help="Data set whose training photos the projection is learned on; all if absent.")
def project(store: Path, out: Path, size: int, fit_on: Path | None) -> None:
    """Region features -> fewer of them, by principal components of the training photos' regions.

    \b
    Example:
      lesa project features/flickr8k -o features/flickr8k-512 --size 512 --fit-on prepared/flickr8k
    """
    from lesa.learn.datasets import read_dataset
    from lesa.learn.features import RegionStore
    from lesa.learn.projection import project as project_regions

    source = RegionStore.open(store)
    names = read_dataset(fit_on).split("train", source.failed()).photos if fit_on else source.names
    with progress_bar("project", None) as advance:
        kept = project_regions(source, out, size, names, progress=lambda done, total: advance(done, total))
    click.echo(f"{len(source)} photos with {size} features a region ({100 * kept:.2f} % of the variance) in {out}")


@cli.command()
@click.argument("config", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Folder of the run; a begun run is gone on with.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key: model.attentions=1.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
def train(config: Path, out: Path, overrides: tuple[str, ...], device: str) -> None:
    """Train by a recipe (TOML); stop it at any moment, the same command goes on.

    \b
    Example:
      lesa train configs/flickr8k.toml -o runs/flickr8k --set seed=1
    """
    from lesa.learn.recipe import read_recipe
    from lesa.learn.train import Progress
    from lesa.learn.train import train as train_run

    recipe = read_recipe(config, list(overrides))
    with progress_bar("train", None) as advance:

        def report(now: Progress) -> None:
            terms = " ".join(f"{name} {value:.3g}" for name, value in now.terms.items())
            figure = "" if now.figure is None else f" | validation {recipe.validation_figure} {now.figure:.2f}"
            advance(now.step, now.steps, f"{terms}{figure}")

        run = train_run(recipe, out, device=device, report=report)
    click.echo(f"trained: {run.folder} (next: lesa evaluate {run.folder})")


@cli.command()
@click.argument("run", type=PATH)
@click.option("--split", default="test", help="`test`, `validation` or `train`.")
@RULES_OPTION
@K_OPTION
@click.option("--checkpoint", type=click.Choice(["last", "best"]), help="As the recipe says if not given.")
@click.option("--dataset", type=PATH, help="Where the data set is, if it moved.")
@click.option("--regions", type=PATH, help="Where the regions are, if they moved.")
@click.option("--per-label", is_flag=True, help="Also print the average precision of each label.")
@click.option("--save-scores", type=PATH, help="Folder for the scores and targets, as `lesa score` reads them.")
@click.option("-o", "--out", type=PATH, help="JSON file to write; in RUN if not given.")
def evaluate(
    run: Path,
    split: str,
    rules: tuple[str, ...],
    ks: tuple[int, ...],
    checkpoint: str | None,
    dataset: Path | None,
    regions: Path | None,
    per_label: bool,
    save_scores: Path | None,
    out: Path | None,
) -> None:
    """ZSL, GZSL and seen labels: P, R, F1 at K and mAP under named rules.

    \b
    Example:
      lesa evaluate runs/flickr8k --rules lesa --rules sklearn -k 3 -k 5
    """
    from lesa.learn.evaluate import evaluate_run, write_evaluation, write_scores
    from lesa.learn.run import open_run

    opened = open_run(run)
    judged = evaluate_run(
        opened, split=split, rules=all_rules(rules), k=ks, checkpoint=checkpoint, dataset=dataset, regions=regions
    )
    path = out or run / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")
    write_evaluation(judged, path)
    for name, tasks in judged.reports.items():
        print_reports(f"{run}, {split}, rules {name!r}, percent", "task", tasks)
        if per_label:
            print_per_label(tasks["GZSL"], judged.vocabulary)
    if save_scores:
        write_scores(judged, save_scores)
        matrices = f"{save_scores / 'scores.npy'} {save_scores / 'targets.npy'}"
        click.echo(f"next: lesa score {matrices} --unseen {len(judged.vocabulary.unseen)}")
    click.echo(f"written: {path}")


@cli.command()
@click.argument("scores", type=PATH)
@click.argument("targets", type=PATH)
@RULES_OPTION
@K_OPTION
@click.option("--unseen", type=click.IntRange(min=0), default=0, help="So many first columns are the unseen labels.")
@click.option("--zeros-absent", is_flag=True, help="A target of 0 means absent, not `not annotated`.")
@click.option("--bootstrap", "draws", type=click.IntRange(min=0), default=0, help="Draws for 95 % intervals; 200 do.")
@click.option("--against", type=PATH, help="Another method's scores: adds the paired difference and its interval.")
@click.option("-o", "--out", type=PATH, help="JSON file to write.")
def score(
    scores: Path,
    targets: Path,
    rules: tuple[str, ...],
    ks: tuple[int, ...],
    unseen: int,
    zeros_absent: bool,
    draws: int,
    against: Path | None,
    out: Path | None,
) -> None:
    """Any method's scores, judged under named metric rules.

    SCORES and TARGETS are matrices, images x labels: .npy (memory-mapped, any size) or .safetensors. Scores are any
    numbers, higher is better; targets are 1 present, -1 absent, 0 not annotated.

    \b
    Example:
      lesa score scores.npy targets.npy --rules all -k 3 -k 5 --unseen 81
      lesa score mine.npy targets.npy --against theirs.npy
    """
    from lesa import score as scoring
    from lesa.bootstrap import DRAWS
    from lesa.protocols import check_k

    scores_NC, targets_NC, other_NC = scoring.read_files(scores, targets, against, zeros_absent)
    draws = draws or (DRAWS if against else 0)
    written: dict[str, Any] = {}
    columns = scoring.tasks(scores_NC.shape[1], unseen)
    for part in columns.values():
        for name in all_rules(rules):
            check_k(ks, name, part.stop - part.start)
    for task, part in columns.items():
        judged = {}
        for name in all_rules(rules):
            with progress_bar(f"{task}, {name}", None) if draws else nullcontext() as advance:
                judged[name] = scoring.judge(
                    scores_NC[:, part],
                    targets_NC[:, part],
                    name,
                    ks,
                    draws,
                    None if other_NC is None else other_NC[:, part],
                    advance or (lambda done, total: None),
                )
        print_reports(f"{scores}, {task}, percent", "rules", {name: each.report for name, each in judged.items()})
        for name, each in judged.items():
            if draws:
                print_intervals(f"{task}, rules {name!r}, over images", each, against)
        written[task] = {name: each.to_dict() for name, each in judged.items()}
    if out:
        write_json(out, {"scores": str(scores), "targets": str(targets), "tasks": written})
        click.echo(f"written: {out}")


JOBS_OPTION = click.option(
    "--jobs", type=click.IntRange(min=1), default=1, help="Runs at a time; they share the cores."
)
SEEDS_OPTION = click.option("--seeds", type=click.IntRange(min=1), help="So many seeds, from 0.")


@cli.command()
@click.argument("config", type=PATH)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change it: dataset=prepared/other.")
@SEEDS_OPTION
@JOBS_OPTION
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of all runs and the tables, or to go on with.")
def compare(config: Path, overrides: tuple[str, ...], seeds: int | None, jobs: int, device: str, out: Path) -> None:
    """Train and score a list of methods x seeds on one data set; write a table, a CSV file and a figure.

    What is done is skipped. A method's grid is tried on the first seed with a fifth of the seen labels held out, and
    judged on the validation photos.

    \b
    Example:
      lesa compare configs/compare-flickr8k.toml -o runs/compare --jobs 2
    """
    from lesa.learn.compare import read_comparison

    run_comparison(read_comparison(config, tuple(range(seeds or 0)), overrides), out, device, jobs)


@cli.command()
@click.argument("config", type=PATH)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe: epochs=12.")
@SEEDS_OPTION
@JOBS_OPTION
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of all runs and the tables, or to go on with.")
def ablate(config: Path, overrides: tuple[str, ...], seeds: int | None, jobs: int, device: str, out: Path) -> None:
    """A recipe (TOML) with one thing changed at a time: attentions, loss terms, front, vectors.

    \b
    Example:
      lesa ablate configs/flickr8k.toml -o runs/ablation --seeds 2 --set epochs=12
    """
    from lesa.learn.ablate import ablation
    from lesa.learn.recipe import merge, parse_override

    changes: dict[str, Any] = {}
    for override in overrides:
        merge(changes, parse_override(override))
    run_comparison(ablation(config, tuple(range(seeds or 1)), changes), out, device, jobs)


def run_comparison(comparison: Any, out: Path, device: str, jobs: int) -> None:
    """Run a comparison, write its results and say where they are."""
    from lesa.learn.compare import chance
    from lesa.learn.compare import compare as run_all
    from lesa.learn.compare_table import write_results

    results = run_all(comparison, out, device, jobs)
    write_results(results, chance(comparison.dataset), comparison.reference, out)
    click.echo((out / "table.md").read_text(encoding="utf-8"))
    click.echo(f"written: {out / 'table.md'}, {out / 'figures.csv'}, {out / 'figure.png'}")


@cli.command()
@click.argument("experiment", type=click.Choice(["nus-wide", "nus-wide-clean", "nus-wide-multi-label", "open-images"]))
@click.argument("root", type=PATH)
@click.option("--photos", type=PATH, required=True, help="Folder of the photos.")
@click.option("--vectors", required=True, help="Label vectors; the paper's are GloVe's, glove.6B.300d.txt.")
@click.option("--weights", type=PATH, help="VGG-19's weights; the paper's are TF-slim's vgg_19.ckpt.")
@click.option("--backbone", default="vgg19", help="Another backbone than the paper's, as `lesa extract` takes it.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe: steps=20000.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
@click.option("--dry-run", is_flag=True, help="Only say what is missing, and what disk and time it will take.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of everything that is made, or to go on with.")
def reproduce(
    experiment: str,
    root: Path,
    photos: Path,
    vectors: str,
    weights: Path | None,
    backbone: str,
    overrides: tuple[str, ...],
    device: str,
    dry_run: bool,
    out: Path,
) -> None:
    """The paper's experiment from the official files in ROOT, and its table beside the published rows.

    Prepares, extracts, trains and evaluates; stop it at any moment, the same command goes on.

    \b
    Example:
      lesa reproduce nus-wide NUS-WIDE --photos NUS-WIDE/Flickr --weights vgg_19.ckpt \\
        --vectors glove.6B.300d.txt -o reproduced/nus-wide --dry-run
    """
    from lesa.learn.experiments import Plan
    from lesa.learn.outlook import look_ahead
    from lesa.learn.reproduce import reproduce as run_plan

    plan = Plan(experiment, root, photos, vectors, out, backbone, weights, overrides, device)
    outlook = look_ahead(plan)
    print_outlook(outlook)
    if dry_run:
        return
    click.echo(f"open {run_plan(plan, announce=click.echo)}")


@cli.command()
@click.option("-o", "--out", type=PATH, default=Path("demo"), help="Folder of the runs and the report.")
def demo(out: Path) -> None:
    """Train both recipes and two controls on the embedded region codes, evaluate them, write an HTML report.

    \b
    Example:
      lesa demo -o demo
    """
    from lesa.learn.demo import run_demo

    report = run_demo(out, announce=click.echo)
    click.echo(f"open {report}")


def all_rules(names: Sequence[str]) -> Sequence[str]:
    """Return the names of metric rules, `all` written out."""
    from lesa.protocols import RULES

    return tuple(RULES) if "all" in names else names


def parse_options(options: Sequence[str]) -> dict[str, str | int]:
    """Turn `KEY=VALUE` options into a mapping; whole numbers become numbers."""
    parsed: dict[str, str | int] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise LesaError(f"--option {option!r}: expected KEY=VALUE, such as output_stride=16")
        parsed[key] = int(value) if value.lstrip("-").isdigit() else value
    return parsed


def print_reports(title: str, first: str, reports: dict[str, Any]) -> None:
    """Print a row a report: labels, images, fingerprint, P, R, F1 at each K, the means of average precision."""
    figures = {name: report.figures() for name, report in reports.items()}
    names = max(figures.values(), key=len)
    rows = []
    for name, report in reports.items():
        row = [name, str(report.labels), str(report.images), f"{report.positives_per_image:.3f}"]
        cells = [f"{figures[name][each]:.2f}" if each in figures[name] else "-" for each in names]
        rows.append((*row, *cells))
    print_table(title, [first, "labels", "images", "positives/image", *names], rows)


def print_intervals(title: str, judged: Any, against: Path | None) -> None:
    """Print a row a figure: its value and 95 % interval over images, and its difference to other scores."""
    header = ["figure", "percent", "95 % interval", *((f"minus {against}", "95 % interval") if against else ())]
    pairs = [(judged.intervals, "{:.2f}"), (judged.difference, "{:+.2f}")]
    rows = []
    for name in judged.intervals:
        row = [name]
        for figures, form in pairs if against else pairs[:1]:
            each = figures[name]
            row += [form.format(each.value), f"{form.format(each.low)} to {form.format(each.high)}"]
        rows.append(row)
    print_table(title, header, rows)


def print_outlook(outlook: Any) -> None:
    """Print what a reproduction lacks, and what is left of each stage."""
    rows = [
        (stage.name, stage.left, size(stage.disk) if stage.disk else "-", duration(stage.seconds))
        for stage in outlook.stages
    ]
    print_table("what is left, on this machine", ["stage", "left", "disk", "about"], rows)
    click.echo(f"{size(outlook.disk)} of regions will be written, {size(outlook.free)} are free")
    click.echo("measured on a few photos and steps; reading photos and regions, validation and judging come on top")
    for line in outlook.missing:
        click.echo(f"missing: {line}")


def size(count: float) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Return a time as people read it."""
    if not seconds:
        return "-"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{max(seconds / 60, 0.1):,.1f} min"


def print_per_label(report: Any, vocabulary: Any) -> None:
    """Print the average precision of each label, the best first."""
    unseen = set(vocabulary.unseen)
    pairs = zip(report.average_precision_C, vocabulary.names, strict=True)
    labels = sorted(((precision, name) for precision, name in pairs if precision is not None), reverse=True)
    rows = [(name, "unseen" if name in unseen else "seen", f"{precision:.2f}") for precision, name in labels]
    print_table("average precision by label, percent", ["label", "", "AP"], rows)


def main() -> NoReturn:
    """Run the command line; a user's mistake or a full disk ends it with one line and exit code 2."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (LesaError, OSError) as error:
        click.echo(f"lesa: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("lesa: stopped; what was finished is kept", err=True)
        sys.exit(130)
    sys.exit(0)
