"""Precision and recall beside torch-fidelity's, from the same features: `python -m benchmarks.precision_recall`.

Writes its section of benchmarks/RESULTS.md. About ten minutes on one core.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from benchmarks.measuring import compare, machine, replace_section
from stablevelocity.evaluation.fidelity import precision_recall

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## Precision and recall"
CASES = [(1024, 64), (1024, 2048), (10_000, 64), (10_000, 2048)]


def features(images: int, dimension: int, scale: float, seed: int) -> torch.Tensor:
    """Of rectified units, as the extractors give them: 32 hidden numbers seen through a fixed random layer."""
    layer = torch.randn(32, dimension, generator=torch.Generator().manual_seed(0)) / 32**0.5
    hidden = scale * torch.randn(images, 32, generator=torch.Generator().manual_seed(seed))
    return (hidden @ layer).relu()


def row(images: int, dimension: int) -> str:
    """The row of a case; call it in a process of its own, as what measures memory slows later allocations."""
    real, fake = features(images, dimension, 1.0, 1), features(images, dimension, 0.9, 2)
    shares: dict[str, tuple[float, float]] = {}

    def theirs() -> None:
        shares["theirs"] = calculate_precision_recall_full(fake, real)

    def ours() -> None:
        coverage = precision_recall(fake, real)
        shares["ours"] = coverage.precision, coverage.recall

    timed = compare("", ("torch-fidelity", theirs), ours, rounds=7 if images < 2000 else 3)
    values = " / ".join("{:.4f}, {:.4f}".format(*shares[name]) for name in ("theirs", "ours"))
    ratios = [f"{middle:.3g} ({low:.3g}-{high:.3g})" for middle, low, high in (timed.wall_ratio, timed.cpu_ratio)]
    seconds = " / ".join(f"{value:.3g}" for value in timed.seconds)
    return f"| {images:,}, {dimension:,} | {values} | {seconds} | {' | '.join(ratios)} |"


def section() -> str:
    """The section of RESULTS.md."""
    lines = [
        HEADING,
        "",
        f"Made by `python -m benchmarks.precision_recall`. {machine()}.",
        "torch-fidelity's `calculate_precision_recall_full` (float32) against `precision_recall` (exact), as many",
        "generated as real images, k = 3, by turns: medians, ratios of theirs over ours with extremes.",
        "",
        "| images, features | precision, recall: theirs / ours | seconds, both | wall ratio | CPU-time ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for line in pool.map(row, *zip(*CASES, strict=True)):
            lines.append(line)
            print(line, flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    replace_section(RESULTS, HEADING, section())
