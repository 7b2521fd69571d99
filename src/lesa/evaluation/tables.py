"""Tables of metrics as text cells, and tables in Markdown."""

from collections.abc import Mapping, Sequence

from lesa.evaluation.report import Report


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report_table(title: str, reports: Mapping[str, Report]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table with one row per report: its test set and all its metrics, in percent.

    Args:
        title: the header of the first column, which has the names of the reports.
        reports: name -> report. A metric that a report does not have is "-".
    """
    metrics = {name: report.metrics() for name, report in reports.items()}
    columns = max(metrics.values(), key=len)
    rows = [
        [
            *(name, str(report.labels), str(report.images), f"{report.positives_per_image:.3f}"),
            *(f"{metrics[name][each]:.2f}" if each in metrics[name] else "-" for each in columns),
        ]
        for name, report in reports.items()
    ]
    return [title, "labels", "images", "positives/image", *columns], rows
