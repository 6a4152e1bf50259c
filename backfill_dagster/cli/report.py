"""`backfill report`: what is there, what is missing and why."""

from __future__ import annotations

import json
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, json_option, opened
from backfill_dagster.cli.summary import shown_path
from backfill_dagster.cli.writing import writing
from backfill_dagster.report import Coverage, build_coverage, render_html, render_markdown, write_report


@click.command()
@config_argument
@click.option("--out", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Write it there too.")
@json_option
def report(config_path: Path, folder: Path | None, as_json: bool) -> None:
    """Say what is there, what is missing and why.

    Writes the coverage report into the state's reports/ (coverage.html, coverage.json and a dated copy), and prints
    it; with --out also report.html and report.json into a folder of your own.
    """
    with opened(config_path, create=False) as state:
        coverage = build_coverage(state)
        written = [state.store.path(key) for key in write_report(state, coverage)]
    if folder is not None:
        written += [str(path) for path in _write_out(folder, coverage)]
    if as_json:
        click.echo(json.dumps(coverage.to_json(), indent=2))
        return
    click.echo(render_markdown(coverage))
    for path in written:
        click.echo(f"written: {shown_path(path)}")


def _write_out(folder: Path, coverage: Coverage) -> list[Path]:
    html, data = folder / "report.html", folder / "report.json"
    with writing(folder, remedy="name another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)
        html.write_text(render_html(coverage), encoding="utf-8")
        data.write_text(json.dumps(coverage.to_json(), indent=2), encoding="utf-8")
    return [html, data]
