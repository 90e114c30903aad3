"""Time, memory and error of one computation beside another on the same numbers."""

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from stablevelocity.files import atomic_write

Result = TypeVar("Result")


# For both forms: on a machine that does other work too, threads that wait for each other measure the scheduler.
torch.set_num_threads(1)


class Comparison(NamedTuple):
    """One row of the table. Ratios are of the other's cost over ours: median over rounds, then the extremes.
    Seconds are medians; bytes are the peak of resident memory above what was there before the call (nan where
    the system does not tell); errors are the largest absolute ones against float64 (None: nothing to err)."""

    case: str
    other: str
    seconds: tuple[float, float]
    wall_ratio: tuple[float, float, float]
    cpu_ratio: tuple[float, float, float]
    bytes: tuple[float, float]
    errors: tuple[float, float] | None


def compare(
    case: str,
    other: tuple[str, Callable[[], Tensor | None]],
    ours: Callable[[], Tensor | None],
    *,
    truth: Tensor | None = None,
    rounds: int = 5,
) -> Comparison:
    """Run both by turns, so that a slow spell of the machine meets both; the first round is not counted."""
    name, theirs = other
    wall, cpu, results = [], [], (None, None)
    for number in range(rounds + 1):
        (wall_theirs, cpu_theirs, first), (wall_ours, cpu_ours, second) = _timed(theirs), _timed(ours)
        if number:
            wall.append((wall_theirs, wall_ours))
            cpu.append((cpu_theirs, cpu_ours))
        results = first, second
    errors = None
    first, second = results
    if truth is not None and first is not None and second is not None:
        errors = float((first.double() - truth).abs().max()), float((second.double() - truth).abs().max())
    seconds = statistics.median(pair[0] for pair in wall), statistics.median(pair[1] for pair in wall)
    del results, first, second
    memory = (peak_bytes(theirs), peak_bytes(ours))
    return Comparison(case, name, seconds, _ratios(wall), _ratios(cpu), memory, errors)


def median_seconds(function: Callable[[], object], rounds: int) -> float:
    """Median wall time of a call after one that is not counted; waits for the accelerator."""
    times = [_timed(function)[0] for _ in range(rounds + 1)]
    return statistics.median(times[1:])


def peak_bytes(function: Callable[[], object]) -> float:
    """Peak of resident memory during a call above that before it (Linux; nan elsewhere)."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return float("nan")
    # Give back what is free, and every block above 64 kB its own mapping from now on (M_MMAP_THRESHOLD): memory
    # that the call takes is then memory that the process grows by. Slower; timing is over.
    gc.collect()
    allocator = ctypes.CDLL(None)
    allocator.mallopt(-3, 65536)
    allocator.malloc_trim(0)
    reset.write_text("5")
    before = _status("VmRSS")
    function()
    return max(0, _status("VmHWM") - before)


def machine() -> str:
    """One line: processor, cores, memory, threads, accelerator, versions."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {device}, one thread; "
        f"load {os.getloadavg()[0]:.1f} at the start; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _timed(function: Callable[[], Result]) -> tuple[float, float, Result]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def _ratios(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    ratios = [theirs / ours for theirs, ours in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def _status(field: str) -> int:
    """A size of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {field} in /proc/self/status")


def section_of(page: Path, heading: str) -> str:
    """The section of a page under a heading of the second order, with the heading; empty when there is none."""
    _, there, rest = (page.read_text() if page.exists() else "").partition(f"{heading}\n")
    return there + rest.partition("\n## ")[0].rstrip() + "\n" if there else ""


def replace_section(page: Path, heading: str, text: str) -> None:
    """Put a section in the place of the one under its heading, or at the end."""
    old, whole = section_of(page, heading), page.read_text()
    with atomic_write(page) as temporary:
        temporary.write_text(whole.replace(old, text) if old else f"{whole.rstrip()}\n\n{text}")
