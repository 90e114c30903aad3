"""Run the parts one after another, each in a process of its own with a limit, and write what they found."""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import PARTS
from benchmarks.gpu.rows import Report, Row, append, read_rows
from stablevelocity.files import atomic_write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Correctness and speed on a GPU.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # what a process of a part is started with
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    if given.part:
        importlib.import_module(f"benchmarks.gpu.{given.part}").run(
            Report(given.part, given.output, given.dry, given.until)
        )
        return 0
    # Ended from outside: the part ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    end = time.monotonic() + 60 * given.minutes
    for number, part in enumerate(given.only):
        left = max(end - time.monotonic(), 1.0)
        seconds = left * PARTS[part] / sum(PARTS[other] for other in given.only[number:])
        run_part(part, seconds, given.output, given.dry)
        write_results(given.output)
    rows = read_rows(given.output)
    bad = [row for row in rows if row["kind"] == "error" or (row["kind"] == "check" and not row["passed"])]
    checks = sum(row["kind"] == "check" for row in rows)
    print(f"{len(rows)} rows, {checks} checks; failed or in error: {[row['name'] for row in bad] or 'none'}")
    return 1 if bad else 0


def run_part(part: str, seconds: float, folder: Path, dry: bool) -> None:
    """Run one part; when its time is up, end the processes of its group. It may have written rows all along."""
    print(f"--- {part}: at most {seconds:.0f} s", flush=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--output", str(folder)]
    command += ["--until", str(time.time() + seconds), *(["--dry"] if dry else [])]
    environment = {"HF_HUB_OFFLINE": "1"} | os.environ
    if part == "learning":
        # cuBLAS promises the same bits in every run only with a workspace of fixed size, chosen before it starts.
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    began = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True, env=environment)
    problem = None
    try:
        code = process.wait(seconds)
        if code:
            problem = f"the process ended with code {code}"
    except subprocess.TimeoutExpired:
        problem = f"stopped after its {seconds:.0f} s; the rows above stand"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took = time.monotonic() - began
    if problem:
        append(folder, {"part": part, "kind": "error", "name": "the part", "note": problem, "at": round(took, 2)})
    row = {"measured": took, "unit": "s", "floor": None, "ratio": None, "note": "imports and all", "at": round(took, 2)}
    append(folder, {"part": part, "kind": "measured", "name": "seconds in all", **row})


def write_results(folder: Path) -> None:
    rows = read_rows(folder)
    with atomic_write(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1))
    with atomic_write(folder / "summary.md") as temporary:
        temporary.write_text(summary(rows))


def summary(rows: list[Row]) -> str:
    """The rows as tables, one for each part: failures first, then what was measured."""
    lines = ["# On a GPU", ""]
    for part in dict.fromkeys(row["part"] for row in rows):
        lines += [f"## {part}", ""]
        own = [row for row in rows if row["part"] == part]
        lines += [f"- **error**: {row['name']}: {row['note']}" for row in own if row["kind"] == "error"]
        checks = [row for row in own if row["kind"] == "check"]
        if checks:
            lines += ["", "| check | error | bound | | note |", "| --- | --- | --- | --- | --- |"]
            for row in sorted(checks, key=lambda row: row["passed"]):
                verdict = "pass" if row["passed"] else "**FAIL**"
                numbers = f"{row['measured']:.3g} | {row['bound']:.3g}"
                lines.append(f"| {row['name']} | {numbers} | {verdict} | {row['note']} |")
        measured = [row for row in own if row["kind"] == "measured"]
        if measured:
            lines += ["", "| measured | | unit | floor | ratio | note |", "| --- | --- | --- | --- | --- | --- |"]
            for row in measured:
                floor, ratio = ("" if row[key] is None else f"{row[key]:.4g}" for key in ("floor", "ratio"))
                value = f"{row['measured']:.5g}"
                lines.append(f"| {row['name']} | {value} | {row['unit']} | {floor} | {ratio} | {row['note']} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
