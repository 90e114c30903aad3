"""Verbs that choose and compare schedulers for a pipeline of one's own. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stablevelocity.cli.options import OutputFolder
from stablevelocity.errors import UserError

app = typer.Typer()

Pipeline = Annotated[str, typer.Argument(help="folder in diffusers' layout, hub id in the local cache, or a family")]
PromptFile = Annotated[Path | None, typer.Option("--prompts", help="a prompt per line, or GenEval's metadata")]
Prompt = Annotated[list[str] | None, typer.Option("--prompt", help="repeat for several")]
Side = Annotated[int | None, typer.Option(min=1, help="pixels; none: the pipeline's own")]
Guidance = Annotated[float | None, typer.Option(min=0, help="none: the family's, or the pipeline's default")]
Offload = Literal["none", "model", "sequential"]
Device = Annotated[str | None, typer.Option(help="none: cuda where there is one, else cpu")]


@app.command()
def tune(
    pipeline: Pipeline,
    output: OutputFolder,
    prompt_file: PromptFile = None,
    prompt: Prompt = None,
    steps: Annotated[int, typer.Option(min=3, help="of the long run to come near to")] = 30,
    calls: Annotated[int | None, typer.Option(min=1, help="network calls wanted; 20 without --loss-db")] = None,
    loss_db: Annotated[float | None, typer.Option(help="instead: PSNR in dB of the final latents to reach")] = None,
    budget: Annotated[int, typer.Option(min=1, help="all network calls, in long runs")] = 16,
    height: Side = None,
    width: Side = None,
    guidance: Guidance = None,
    dtype: str | None = None,
    device: Device = None,
    offload: Offload = "none",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Choose xi, low steps and grid for a pipeline by measurement: scheduler_config.json, tuning.json, page.html."""
    prompts = _prompts(prompt_file, prompt)
    if calls is not None and loss_db is not None:
        raise UserError(f"tune: --calls {calls} and --loss-db {loss_db:g} given; expected one of the two")
    from stablevelocity.files import write_json
    from stablevelocity.schedulers.tuned import remember
    from stablevelocity.tuning import compare
    from stablevelocity.tuning.page import write_page

    model = _open(pipeline, height, width, guidance, dtype, device, offload)
    if calls is None and loss_db is None:
        calls = 20
    tuning, comparison = compare.tune(
        model, prompts, steps=steps, calls=calls, loss_db=loss_db, budget=budget, seed=seed, say=typer.echo
    )
    asked = tuning["calls"] if tuning["options"] is None else steps
    model.scheduler(**(tuning["options"] or {"enabled": False})).save_pretrained(output)
    write_json(output / "tuning.json", tuning)
    try:
        remember(tuning)
    except OSError as error:  # an unwritable home: the tuning file itself is there
        why = f"{error.filename}: {error.strerror}"
        typer.echo(
            f"not cached for xi='auto' ({why}); pass tuning={str(output / 'tuning.json')!r} to from_config", err=True
        )
    facts = {
        "network calls in all": f"{tuning['network_calls']} of {tuning['budget_calls']}",
        "agreement": tuning["agreement"],
        **tuning["arguments"],
    }
    shown = [f"{prompt} (seed {number})" for prompt, number in tuning["held_out_requests"]]
    skip_error = tuning["recommendation"]["skip_error"]
    write_page(output / "page.html", f"Tuned: {pipeline}", tuning["verdict"], comparison, shown, facts, skip_error)
    typer.echo(f"{output}: scheduler_config.json (ask the pipeline for {asked} steps), tuning.json, page.html")


@app.command()
def compare_pipeline(
    pipeline: Pipeline,
    output: OutputFolder,
    prompt_file: PromptFile = None,
    prompt: Prompt = None,
    steps: Annotated[int, typer.Option(min=3, help="of the long run")] = 30,
    calls: Annotated[int | None, typer.Option(min=1, help="of each other arm; none: 9 steps below 0.85")] = None,
    height: Side = None,
    width: Side = None,
    guidance: Guidance = None,
    dtype: str | None = None,
    device: Device = None,
    offload: Offload = "none",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """The long run, as many base steps, StableVS at 0.85 and its control side by side: comparison.json, page.html."""
    prompts = _prompts(prompt_file, prompt)
    from stablevelocity.files import write_json
    from stablevelocity.tuning import compare
    from stablevelocity.tuning.page import write_page

    model = _open(pipeline, height, width, guidance, dtype, device, offload)
    comparison = compare.compare_pipeline(model, prompts, steps=steps, calls=calls, seed=seed, say=typer.echo)
    best = max(comparison.rows[1:], key=lambda row: row["psnr"])
    sentence = f"nearest to the long run: {best['arm']}, {best['psnr']:.1f} dB at {best['calls']} calls"
    write_json(
        output / "comparison.json", {"pipeline": pipeline, "arguments": model.arguments, "arms": comparison.rows}
    )
    write_page(output / "page.html", f"Compared: {pipeline}", sentence, comparison, prompts, model.arguments)
    typer.echo(sentence)


def _prompts(file: Path | None, given: list[str] | None) -> list[str]:
    if (file is None) == (not given):
        raise UserError("expected --prompts FILE or one --prompt TEXT or more, and not both")
    from stablevelocity.pretrained.prompts import read_plain

    return given or read_plain(file or Path())


def _open(
    name: str, height: int | None, width: int | None, guidance: float | None, dtype: Any, device: Any, offload: Any
):
    import torch

    from stablevelocity.pretrained.generate import prepare
    from stablevelocity.tuning.pipelines import open_model

    model = open_model(name, height=height, width=width, guidance=guidance, dtype=dtype)
    prepare(model.pipeline, device or ("cuda" if torch.cuda.is_available() else "cpu"), offload)
    return model
