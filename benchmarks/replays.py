"""How far results made again differ, by what may and what may not: `python -m benchmarks.replays results/digits-arms`.

For the tolerance of `stablevelocity revalidate`: pieces of kept results are replayed under other numbers of threads and
other kernels, as on another machine, and with settings that are slightly wrong. Prints the largest difference as a
share of the largest number (`spread`). Nothing is written.

With `bf16` as second word, runs are trained in it instead, and each machine is compared with the first.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from stablevelocity.cli.revalidate import Pair, _replay_of, spread
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
    records: dict[str, Record] = {}
    for record in read_records(results):
        kind = record.first.relative_to(results).parts
        if _replay_of(kind, record, study, STEPS)[0] is not None:
            run = study.runs().get(kind[1])
            parts = [run.objective, *(["aligned"] if run.alignment else [])] if run and kind[0] == "runs" else kind[:2]
            records.setdefault(" ".join(parts) if kind[0] != "samples" else "images", record)
    return records


def changed(study: Study, **changes: Callable) -> Study:
    """The study with keys of `training` that are functions of what they were."""
    content = json.loads(study_json(study))
    for key, change in changes.items():
        content["training"][key] = change(content["training"].get(key))
    return parse_study(content, "changed")


def replayed(results: Path, study: Study, record: Record) -> list[Pair]:
    replay, _ = _replay_of(record.first.relative_to(results).parts, record, study, STEPS)
    assert replay is not None
    return replay()[1]


def row(
    name: str, results: Path, study: Study, *, training: bool = False, against: dict[str, list] | None = None
) -> None:
    cells = []
    for piece, record in pieces(results, study).items():
        if training and record.first.name != "metrics.csv":
            cells.append("")
            continue
        pairs = replayed(results, study, record)
        kept = against[piece] if against else [old for _, old in pairs]
        cells.append(f"{max(spread(new, old) for (new, _), old in zip(pairs, kept, strict=True)):.1e}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    results = Path(sys.argv[1])
    study = load_study(results / "study.json")
    if "ATEN_CPU_CAPABILITY" in os.environ:
        row(PLAIN, results, study)
        return
    records = pieces(results, study)
    print(f"| replay | {' | '.join(records)} |\n| --- |{' --- |' * len(records)}", flush=True)
    if "bf16" in sys.argv:
        study = changed(study, precision=lambda _: "bf16")
        runs = {piece: record for piece, record in records.items() if record.first.name == "metrics.csv"}
        against = {piece: [new for new, _ in replayed(results, study, record)] for piece, record in runs.items()}
        for name, machine in MACHINES.items():
            with machine():
                row(name, results, study, training=True, against=against)
        return
    for name, machine in MACHINES.items():
        with machine():
            row(name, results, study)
    plain = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    subprocess.run([sys.executable, "-m", __spec__.name, *sys.argv[1:]], env=plain, check=True)
    for name, changes in WRONG.items():
        row(name, results, changed(study, **changes), training=True)


if __name__ == "__main__":
    main()
