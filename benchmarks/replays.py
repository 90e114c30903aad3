"""How far results made again differ, by what may and what may not: `python -m benchmarks.replays results/digits-arms`.

For the tolerance of `stablevelocity revalidate`: pieces of kept results are replayed under other numbers of threads and
other kernels, as on another machine, and with settings that are slightly wrong. Prints the largest difference as a
share of the largest number (`spread`). Nothing is written.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from stablevelocity.cli.revalidate import _replay_of, spread
from stablevelocity.records import Record, read_records
from stablevelocity.study import Study, load_study, parse_study, study_json

STEPS = 20


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """That many, also where a stage asks for one."""
    set_number, before = torch.set_num_threads, torch.get_num_threads()
    set_number(count)
    torch.set_num_threads = lambda _: None
    yield
    torch.set_num_threads = set_number
    set_number(before)


MACHINES = {
    "as it was made": contextlib.nullcontext,
    "two threads": lambda: threads(2),
    "without oneDNN": lambda: torch.backends.mkldnn.flags(enabled=False),
}
PLAIN = "without vector instructions"  # ATEN_CPU_CAPABILITY is read when torch is imported
WRONG: dict[str, dict[str, Callable]] = {
    "lr 1 % higher": {"lr": lambda lr: 1.01 * lr},
    "label drop 0.11": {"label_drop": lambda _: 0.11},
}


def pieces(results: Path, study: Study) -> dict[str, Record]:
    """One record of each kind: shards, a set of images, and a run of each kind of arm."""
    found: dict[str, Record] = {}
    for record in read_records(results):
        kind = record.first.relative_to(results).parts
        if _replay_of(kind, record, study, STEPS)[0] is not None:
            run = study.runs().get(kind[1])
            parts = [run.objective, *(["aligned"] if run.alignment else [])] if run and kind[0] == "runs" else kind[:2]
            found.setdefault(" ".join(parts) if kind[0] != "samples" else "images", record)
    return found


def largest(results: Path, study: Study, record: Record) -> float:
    replay, _ = _replay_of(record.first.relative_to(results).parts, record, study, STEPS)
    assert replay is not None
    return max(spread(new, old) for new, old in replay()[1])


def row(name: str, results: Path, study: Study, *, training_only: bool = False) -> None:
    cells = [
        "" if training_only and record.first.name != "metrics.csv" else f"{largest(results, study, record):.1e}"
        for record in pieces(results, study).values()
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    results = Path(sys.argv[1])
    study = load_study(results / "study.json")
    if "ATEN_CPU_CAPABILITY" in os.environ:
        row(PLAIN, results, study)
        return
    names = list(pieces(results, study))
    print(f"| replay | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}", flush=True)
    for name, machine in MACHINES.items():
        with machine():
            row(name, results, study)
    subprocess.run(
        [sys.executable, "-m", __spec__.name, *sys.argv[1:]],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default"},
        check=True,
    )
    for name, changes in WRONG.items():
        content = json.loads(study_json(study))
        for key, change in changes.items():
            content["training"][key] = change(content["training"].get(key))
        row(name, results, parse_study(content, name), training_only=True)


if __name__ == "__main__":
    main()
