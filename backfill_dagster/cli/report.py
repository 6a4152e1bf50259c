"""`backfill report`: what is there, what is missing and why."""

from __future__ import annotations

import json
from pathlib import Path

import click

from backfill_dagster.cli.opening import config_argument, json_option, opened
from backfill_dagster.report import build_coverage, render_html, render_markdown, write_report


@click.command()
@config_argument
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Also write report.html and report.json there.")
@json_option
def report(config_path: Path, folder: Path | None, as_json: bool) -> None:
    """Write the coverage report (HTML and JSON) into the state's reports/, and print it."""
    with opened(config_path) as state:
        coverage = build_coverage(state)
        keys = write_report(state, coverage)
        written = [state.store.path(key) for key in keys]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(coverage.to_json(), indent=2), encoding="utf-8")
        (folder / "report.html").write_text(render_html(coverage), encoding="utf-8")
        written += [str(folder / "report.html"), str(folder / "report.json")]
    if as_json:
        click.echo(json.dumps(coverage.to_json(), indent=2))
        return
    click.echo(render_markdown(coverage))
    for path in written:
        click.echo(f"written: {path}")
