"""`python -m benchmarks`: print all tables and write them to benchmarks/RESULTS.md. About five minutes on 2 cores."""

import datetime
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import dry_run, host_side, latents, main_job, precision_recall, speed, stf, target_share, trainer_step
from benchmarks.measuring import Comparison, machine, section_of
from stablevelocity.files import atomic_write

RESULTS = Path(__file__).parent / "RESULTS.md"


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a process of its own: memory is that of this case only."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    lines: list[str] = []

    def say(line: str = "") -> None:
        print(line, flush=True)
        lines.append(line)

    say("# What the method core costs")
    say()
    say(f"Made by `python -m benchmarks` on {datetime.date.today()}; rerun it to update this page.")
    say(f"Machine: {alone(machine)}.")
    say()
    say("## Speed, memory and accuracy")
    say()
    say(
        "The other form's cost over ours, run by turns on the same numbers: median of the rounds, extremes in brackets."
    )
    say("Memory: peak of resident memory above that before the call. Error: largest absolute one against float64.")
    say("Bank insertion is timed into a full bank; where labels repeat in a batch the order is kept.")
    say()
    say("| case | against | seconds, theirs / ours | wall ratio | CPU-time ratio | MB, theirs / ours | error, both |")
    say("| --- | --- | --- | --- | --- | --- | --- |")
    for function, arguments in speed.CASES:
        say(_row(alone(function, *arguments)))
    say()
    say("## Does StableVM differ from STF?")
    say()
    say(f"10-dimensional mixture of the paper, linear path, {stf.DRAWS:,} independent draws for each; per cent with")
    say("95 % intervals. Bias: regression of the target on the closed-form velocity, less 1 (0 in theory). Last")
    say("column: STF's variance over StableVM's, less 1 (0 by exchangeability of the references).")
    say()
    say("| t | n | StableVM bias | STF bias | variance, both | STF - StableVM variance |")
    say("| --- | --- | --- | --- | --- | --- |")
    rows = alone(stf.table)
    for row in rows:
        say(
            f"| {row.t} | {row.count} | {_interval(row.stablevm_bias)} | {_interval(row.stf_bias)} | "
            f"{row.variance[0]:.4g}, {row.variance[1]:.4g} | {_interval(row.difference)} |"
        )
    say()
    outside = sum(
        abs(value) > half for row in rows for value, half in (row.stablevm_bias, row.stf_bias, row.difference)
    )
    say(f"{outside} of {3 * len(rows)} intervals leave out 0; {0.05 * 3 * len(rows):.1f} would by chance at 95 %.")
    say("Rows of one n share their draws of references and noise at all t, so their differences move together.")
    say()
    say("## Share of a training step")
    say()
    step = alone(target_share.measure)
    say(
        f"{step.model}, batch {step.batch}, {step.dtype}: forward and backward {step.network:.3g} s; bank insertion "
        f"{1000 * step.insertion:.3g} ms; target over n = 256 float16 references of distinct classes "
        f"{1000 * step.target:.3g} ms; share {100 * step.share:.2g} %. The target reads its references at "
        f"{step.target_bandwidth / 1e9:.3g} GB/s; a copy on this device moves {step.copy_bandwidth / 1e9:.3g} GB/s."
    )
    if "cuda" not in step.model:
        say("On a GPU, with SiT-XL/2 at batch 256: benchmarks/GPU.md.")
    say()
    say("## Where a step of the digits study goes")
    say()
    say("Per cent of the training thread's CPU time; the reader's thread runs beside it.")
    say()
    rows = alone(trainer_step.digits, 300, 50)
    sections = sorted({name for _, _, shares in rows for name in shares}, key=lambda name: -rows[-1][2].get(name, 0))
    say(f"| arm | steps/s | {' | '.join(sections)} |")
    say("| --- " * (2 + len(sections)) + "|")
    for arm, rate, shares in rows:
        say(f"| {arm} | {rate:.3g} | {' | '.join(f'{100 * shares.get(name, 0):.1f}' for name in sections)} |")
    say()
    say("## From images to latents")
    say()
    rates = alone(latents.measure, 16, 8192, 5)
    say(
        f"8,192 images and the autoencoder of the digits study: {rates['overlapped']:,.0f} images/s with reading and "
        f"writing beside the encoding, {rates['one after the other']:,.0f} one after the other. "
        "Each job's log says what bounds it."
    )
    # Compared with an older checkout, which is not at hand here, or made by a command of its own.
    for heading in (host_side.HEADING, "## The main job", main_job.HEADING, dry_run.HEADING, precision_recall.HEADING):
        say()
        say(section_of(RESULTS, heading).rstrip())
    with atomic_write(RESULTS) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _row(result: Comparison) -> str:
    seconds = " / ".join(f"{value:.3g}" for value in result.seconds)
    memory = " / ".join(f"{value / 1e6:,.3g}" for value in result.bytes)
    ratios = [f"{middle:.3g} ({low:.3g}-{high:.3g})" for middle, low, high in (result.wall_ratio, result.cpu_ratio)]
    errors = "-" if result.errors is None else " / ".join(f"{value:.1e}" for value in result.errors)
    return f"| {result.case} | {result.other} | {seconds} | {' | '.join(ratios)} | {memory} | {errors} |"


def _interval(value: tuple[float, float]) -> str:
    return f"{value[0]:+.2f} ± {value[1]:.2f}"


if __name__ == "__main__":
    main()
