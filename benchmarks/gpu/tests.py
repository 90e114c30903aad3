"""The tests that need a device, by pytest."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.gpu.rows import Report

ROOT = Path(__file__).parents[2]


def run(report: Report) -> None:
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "cuda.is_available()" in file.read_text()]
    files = [str(file) for file in files if "skipif" in file.read_text()][: 1 if report.dry else None]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.xml"
        # Not the project's own options: they need packages that only distribute tests over processes.
        options = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", f"--junitxml={result}"]
        command = [sys.executable, "-m", "pytest", *options, "-k", "cuda or gpu or device", *files]
        seconds = max(report.time_left - 2, 5)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        print(done.stdout[-3000:], done.stderr[-1000:])
        if not result.exists():
            last = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
            report.error("pytest", f"code {done.returncode}: {last[-1][:200]}")
            return
        for case in ElementTree.parse(result).iter("testcase"):
            note_result(report, case)


def note_result(report: Report, case: ElementTree.Element) -> None:
    name = f"{case.get('classname')}::{case.get('name')}"
    for kind in ("failure", "error", "skipped"):
        outcome = case.find(kind)
        if outcome is not None:
            message = (outcome.get("message") or "").splitlines() or [""]
            if kind == "skipped":
                report.measured(f"{name} skipped", 1, "", note=message[0])
            else:
                report.error(name, f"{kind}: {message[0][:200]}")
            return
    report.check(name, 0.0, 0)
