"""Verbs on the study file itself. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated

import typer

from stablevelocity.cli.options import output_file, say
from stablevelocity.cluster.site import SITE_FILE, load_site
from stablevelocity.errors import UserError
from stablevelocity.study import load_study

app = typer.Typer()


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="study file, YAML or JSON")],
    site: Annotated[Path, typer.Option(help="site file; checked too where there is one")] = SITE_FILE,
) -> None:
    """Check a study file, and the files and folders that it names, and say what it would run."""
    from stablevelocity.cli.checks import check_machine, fp16_without_accelerator
    from stablevelocity.cluster.resources import check_processes, check_rules

    loaded, settings = load_study(study), load_site(site)
    check_rules(settings)
    check_processes(settings, loaded)
    check_machine(loaded)
    if problem := fp16_without_accelerator(loaded):
        if settings.launcher == "local":
            raise UserError(problem)
        say(f"note: {problem}")
    for key, section in loaded.auto().items():
        by = f"{getattr(section, section.number)} {list(section.interval)}" if section.interval else "auto"
        say(f"{key}: {by}, the split point of the latents' variance curve, which is made before the run")
    runs = loaded.runs()
    say(f"{study}: study {loaded.name!r} is valid: {len(runs)} training runs, {len(loaded.sample_sets())} sets")


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="study file, YAML or JSON")],
    gpus: Annotated[int, typer.Option(min=1, max=10**6, help="devices in all")] = 8,
    gpus_per_run: Annotated[int, typer.Option(min=1, max=10**6, help="devices that train one run")] = 8,
    peak: Annotated[float, typer.Option(help="TFLOP/s of one device; 989: H100 in bfloat16")] = 989.0,
    utilisation: Annotated[float, typer.Option(help="share of the peak reached; 0.39: measured on an H100")] = 0.39,
    measured: Annotated[
        list[str], typer.Option(help="MODEL=images/s per device, or MODEL=metrics.csv of a run on one device")
    ] = [],  # noqa: B006 (typer reads it)
) -> None:
    """Print GPU-hours, disk and wall time per table, before they are spent."""
    from stablevelocity.cli.plan import Throughput, plan_text, read_measured
    from stablevelocity.cli.plan import plan as plan_of

    throughput = Throughput(peak, utilisation, read_measured(measured))
    say(plan_text(plan_of(load_study(study), throughput, devices=gpus, per_run=gpus_per_run)))


@app.command()
def verify(results: Annotated[Path, typer.Argument(help="results/<study>")]) -> None:
    """Check every kept file against its recorded checksum, and make tables and claims again."""
    from stablevelocity.cli.verify import differences
    from stablevelocity.records import code_table

    lines = list(differences(results))
    for line in lines:
        say(line)
    for row in code_table(results):
        say(f"{row['results']}: {row['count']} by code {row['code']}; {row['verified'] or 'not verified'}")
    say(f"{results}: {len(lines)} differences" if lines else f"{results}: all files are as recorded")
    raise typer.Exit(1 if lines else 0)


@app.command()
def revalidate(
    results: Annotated[Path, typer.Argument(help="results/<study>")],
    runs: Annotated[list[str], typer.Option(help="only of these runs: repeated")] = [],  # noqa: B006 (typer reads it)
    steps: Annotated[int, typer.Option(help="of training, at least", min=1)] = 20,
) -> None:
    """Make a piece of each kept result again with today's code; note what agrees, exit with 1 if any does not."""
    from stablevelocity.cli.revalidate import revalidate as replay

    differ, agree = [], 0
    for outcome in replay(results, runs, steps):
        agree += outcome.agrees
        say(f"{outcome.record.first}: {'verified' if outcome.agrees else 'DIFFERS'}: {outcome.by}")
        differ += [] if outcome.agrees else [str(outcome.record.first)]
    if agree:
        say("noted in the records; in the page as well when it is made again: `snakemake all --forcerun report`")
    if differ:
        say(f"{len(differ)} results differ: {', '.join(differ)}; `--config remake=<run>` makes a run's again")
    raise typer.Exit(1 if differ else 0)


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("--output", callback=output_file, help="file; none: standard output")
    ] = None,
) -> None:
    """The JSON schema of study files, for editors; committed as config/study.schema.json."""
    from stablevelocity.files import atomic_write
    from stablevelocity.study import study_schema

    if output is None:
        typer.echo(study_schema(), nl=False)
    else:
        with atomic_write(output) as temporary:
            temporary.write_text(study_schema())
