"""`lesa score`: files of scores and targets in, tables and JSON out; what it refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lesa.evaluation.report import Report, evaluate
from lesa.evaluation.rules import RULES
from lesa.files import read_json


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Scores and targets of 60 images and 7 labels."""
    rng = np.random.default_rng(0)
    targets_NC = rng.choice([-1, 0, 1], p=[0.6, 0.2, 0.2], size=(60, 7)).astype(np.int8)
    np.save(tmp_path / "scores.npy", (targets_NC + rng.normal(size=(60, 7))).astype(np.float32))
    np.save(tmp_path / "targets.npy", targets_NC)
    return tmp_path / "scores.npy", tmp_path / "targets.npy"


def test_all_rules_side_by_side_equal_the_function(
    lesa: Callable[..., int], files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = files[0].parent / "evaluation.json"
    assert lesa("score", *files, "--rules", "all", "-k", "1", "-k", "2", "-o", out) == 0
    matrices = [np.load(path) for path in files]
    evaluated = read_json(out)["tasks"]["all labels"]
    assert list(evaluated) == list(RULES)
    for name, each in evaluated.items():
        assert Report.from_dict(each["report"]) == evaluate(*matrices, name, k=(1, 2))
    printed = capsys.readouterr().out
    report = evaluate(*matrices, "miil", k=(1, 2))
    assert all(f"{value:.2f}" in printed for value in report.metrics().values())
    assert f"{report.positives_per_image:.3f}" in printed


def test_unseen_columns_make_three_tasks(lesa: Callable[..., int], files: tuple[Path, Path], tmp_path: Path) -> None:
    assert lesa("score", *files, "--unseen", 3, "-k", 1, "-o", tmp_path / "evaluation.json") == 0
    tasks = read_json(tmp_path / "evaluation.json")["tasks"]
    assert {task: each["lesa"]["report"]["labels"] for task, each in tasks.items()} == {"ZSL": 3, "GZSL": 7, "seen": 4}


def test_intervals_and_the_paired_difference(
    lesa: Callable[..., int], files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "worse.npy", np.load(files[0]) - np.load(files[1]))
    options = ["-k", "1", "--against", tmp_path / "worse.npy", "--bootstrap", 50, "-o", tmp_path / "evaluation.json"]
    assert lesa("score", *files, *options) == 0
    evaluated = read_json(tmp_path / "evaluation.json")["tasks"]["all labels"]["lesa"]
    worse = evaluate(np.load(tmp_path / "worse.npy"), np.load(files[1]), k=(1,))
    difference = evaluated["difference"]["mAP"]
    expected = evaluated["report"]["mean_average_precision"] - worse.mean_average_precision
    assert difference["value"] == pytest.approx(expected)
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert f"{difference['low']:+.2f} to {difference['high']:+.2f}" in capsys.readouterr().out


def test_safetensors_are_read_like_npy(lesa: Callable[..., int], files: tuple[Path, Path], tmp_path: Path) -> None:
    both = {"scores": np.load(files[0]), "targets": np.load(files[1])}
    save_file(both, tmp_path / "both.safetensors")
    save_file({"any name": both["scores"]}, tmp_path / "one.safetensors")
    for scores in ("both.safetensors", "one.safetensors"):
        out = tmp_path / f"{scores}.json"
        assert lesa("score", tmp_path / scores, tmp_path / "both.safetensors", "-k", 1, "-o", out) == 0
        report = Report.from_dict(read_json(out)["tasks"]["all labels"]["lesa"]["report"])
        assert report == evaluate(both["scores"], both["targets"], k=(1,))


def test_targets_of_0_and_1_must_be_explained(
    lesa: Callable[..., int], files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    present = np.load(files[1]) > 0
    np.save(tmp_path / "targets01.npy", present.astype(np.int64))
    assert lesa("score", files[0], tmp_path / "targets01.npy") == 2
    assert "--zeros-absent" in capsys.readouterr().err
    out = tmp_path / "evaluation.json"
    assert lesa("score", files[0], tmp_path / "targets01.npy", "--zeros-absent", "-o", out) == 0
    report = Report.from_dict(read_json(out)["tasks"]["all labels"]["lesa"]["report"])
    assert report == evaluate(np.load(files[0]), np.where(present, 1, -1))


@pytest.mark.parametrize(
    ("name", "matrix", "message"),
    [
        ("missing.npy", None, "does not exist"),
        ("scores.csv", b"1,2", "neither .npy nor .safetensors"),
        ("broken.npy", b"no array", "holds no matrix that can be read"),
        ("empty.npy", b"", "holds no matrix that can be read"),
        ("broken.safetensors", b"no tensors", "holds no matrix that can be read"),
        ("objects.npy", np.array([[{}]]), "holds no matrix that can be read"),
        ("words.npy", np.array([["a"]]), "expected numbers, images x labels"),
        ("complex.npy", np.ones((60, 7), complex), "expected numbers, images x labels"),
        ("line.npy", np.zeros(3), "expected numbers, images x labels"),
        ("small.npy", np.zeros((2, 2)), "both must have the same images and the same labels"),
    ],
)
def test_what_is_no_score_matrix_is_named(
    lesa: Callable[..., int],
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    matrix: object,
    message: str,
) -> None:
    if isinstance(matrix, bytes):
        (tmp_path / name).write_bytes(matrix)
    elif matrix is not None:
        np.save(tmp_path / name, matrix)
    assert lesa("score", tmp_path / name, files[1]) == 2
    assert message in capsys.readouterr().err


def test_targets_that_are_no_targets_are_refused_also_where_zeros_are_absent(
    lesa: Callable[..., int], files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    targets_NC = np.load(files[1])
    targets_NC[3, 2] = 7
    np.save(files[1], targets_NC)
    assert lesa("score", *files, "--zeros-absent") == 2
    assert "target at row 3, column 2 is 7" in capsys.readouterr().err


def test_k_is_refused_before_the_first_table(
    lesa: Callable[..., int], files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert lesa("score", *files, "--unseen", 5, "-k", 3) == 2
    printed = capsys.readouterr()
    assert "K is 3, but there are 2 labels" in printed.err
    assert not printed.out


def test_a_narrow_terminal_and_brackets_in_a_path_change_no_figure(
    lesa: Callable[..., int],
    files: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    odd = files[0].parent / "[bold]scores[red].npy"
    odd.write_bytes(files[0].read_bytes())
    assert lesa("score", odd, files[1], "-k", 1, "-k", 2, "-k", 3) == 0
    printed = capsys.readouterr().out
    assert "[bold]scores[red].npy" in printed
    metrics = evaluate(np.load(files[0]), np.load(files[1]), k=(1, 2, 3)).metrics()
    assert all(f"{value:.2f}" in printed for value in metrics.values())


def test_there_are_not_more_unseen_labels_than_columns(
    lesa: Callable[..., int], files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert lesa("score", *files, "--unseen", 7) == 2
    assert "7 unseen labels of 7" in capsys.readouterr().err


def test_scoring_imports_no_pytorch(files: tuple[Path, Path]) -> None:
    arguments = ["score", *map(str, files), "--rules", "all"]
    program = (
        "import sys\n"
        f"sys.argv = ['lesa', *{arguments!r}]\n"
        "from lesa.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'scipy', 'pydantic', 'sklearn'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
