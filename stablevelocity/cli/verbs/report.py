"""Verbs of tables, figures and the report. Heavy imports happen in the verb."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from stablevelocity.cli.options import Output, StudyFile, output_file, say

app = typer.Typer()


Results = Annotated[Path, typer.Option(help="results/<study>")]
Name = Annotated[str, typer.Option(help="as named in reporting/sections")]


@app.command()
def table(study: StudyFile, results: Results, name: Name, output: Output) -> None:
    """Make one table of the report."""
    from stablevelocity.reporting.make import make_table

    make_table(study, results, name, output)


@app.command()
def figure(
    study: StudyFile,
    results: Results,
    name: Name,
    output: Output,
    serif: Annotated[bool, typer.Option("--serif", help="in serif type, for a paper set in Times")] = False,
) -> None:
    """Draw one figure of the report at the width of a page (PDF, SVG, PNG) and of a column (PDF, PNG)."""
    from stablevelocity.reporting.make import make_figure

    make_figure(study, results, name, output, serif=serif)


@app.command()
def paper_tables(study: StudyFile, results: Results) -> None:
    """Make the paper's tables with this study's numbers: CSV, Markdown, LaTeX and HTML in results/<study>/paper."""
    from stablevelocity.reporting.paper_rows import make_paper_tables

    make_paper_tables(study, results)


@app.command()
def claims(study: StudyFile, results: Results, output: Output) -> None:
    """Test the paper's claims on the study's numbers."""
    from stablevelocity.reporting.make import make_claims

    make_claims(study, results, output)


@app.command()
def report(study: StudyFile, results: Results, output: Output) -> None:
    """Write the report, one page that opens offline."""
    from stablevelocity.reporting.page import make_page

    make_page(study, results, output)


@app.command()
def summary(results: Annotated[Path, typer.Argument(help="results/<study>")]) -> None:
    """Show the verdicts of a finished study in ten lines, and where its report is."""
    from stablevelocity.reporting.claims import summary_lines

    for line in summary_lines(results):
        say(line)
    say(f"report: {results / 'report.html'}")


@app.command()
def compare(
    results: Annotated[Path, typer.Argument(help="a new results/<study>")],
    reference: Annotated[Path, typer.Argument(help="the one to compare with, such as results/reference/digits")],
    page: Annotated[
        Path | None, typer.Option(help="also write all cells, and the figures of both, to this file")
    ] = None,
) -> None:
    """Compare two results of a study, cell by cell; exit status 1 when they differ beyond the seeds' spread."""
    from stablevelocity.reporting import compare as comparing

    comparison = comparing.write_comparison(results, reference, page) if page else comparing.compare(results, reference)
    say(str(comparison))
    sys.exit(0 if comparison.agrees else 1)


@app.command()
def index(results: Annotated[Path, typer.Argument(help="the folder of all studies")] = Path("results")) -> None:
    """List every study and reference copy with date, scale, verdicts and code, in results/index.html."""
    from stablevelocity.reporting.index import make_index

    say(str(make_index(results)))


@app.command()
def archive(
    results: Annotated[Path, typer.Argument(help="a finished results/<study>, or a copy of one")],
    output: Annotated[Path, typer.Option("--output", "-o", callback=output_file, help="the zip")],
) -> None:
    """Write page, tables, figures, study and the record of every job as one zip, an RO-Crate with checksums."""
    from stablevelocity.reporting.reference import make_archive

    make_archive(results, output)


@app.command()
def trace(
    table: Annotated[Path, typer.Argument(help="results/<study>/tables/<table>.csv")],
    row: Annotated[str, typer.Option(help="a label, a method, or values of key columns: 'StableVM', 'cfm, 650, ode'")],
    column: Annotated[str, typer.Option(help="such as fid")],
    as_json: Annotated[bool, typer.Option("--json", help="every job in full, as JSON")] = False,
) -> None:
    """Show where a number came from: each job behind it with its command, code, versions, host and checksums."""
    from stablevelocity.reporting.trace import find

    origin = find(table, row, column)
    say(origin.as_json() if as_json else "\n".join(origin.lines()))


@app.command()
def keep(
    results: Annotated[Path, typer.Argument(help="a finished results/<study>")],
    output: Annotated[Path, typer.Argument(help="where its copy goes, such as results/reference/digits")],
) -> None:
    """Copy tables, figures, claims and report of a finished study, with its provenance, under 4 MB."""
    from stablevelocity.reporting.reference import make_reference

    make_reference(results, output)
