"""Jobs of ordinary rules at a limit on submitted jobs, with programs that answer as SLURM's do."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stablevelocity.cluster import plugin

ROOT = Path(__file__).parents[2]
SNAKEFILE = """
from stablevelocity.cluster import plugin

plugin.ASK_AGAIN = 0.1
plugin.patch()

rule all:
    input: "a", "b"

rule:
    name: "a"
    output: "a"
    shell: "false"

rule:
    name: "b"
    output: "b"
    shell: "false"
"""
# Its jobs have done their work as soon as they are taken.
SBATCH = """
exec 9>>calls
flock 9  # two threads submit
echo called >>calls
if [ $(wc -l <calls) -le 3 ]; then
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
    exit 1
fi
touch $(echo "$*" | sed "s/.*rule_\\([ab]\\).*/\\1/")
wc -l <calls >>taken
tail -1 taken
"""
PROGRAMS = {
    "sbatch": SBATCH,
    "squeue": "sed 's/$/|COMPLETED/' taken",
    "sinfo": "exit 0",
    "scontrol": "exit 1",
    "scancel": "exit 0",
}


def test_jobs_that_slurm_takes_later_are_submitted_later_and_one_line_says_so(tmp_path: Path) -> None:
    """A workflow of two jobs, of which SLURM refuses the first three submissions."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    words = "-m snakemake --executor slurm --jobs 2 --latency-wait 0 --slurm-init-seconds-before-status-checks 1"
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, *words.split(), "--slurm-status-command", "squeue"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / name).exists() for name in "ab"] == [True, True]
    assert len((tmp_path / "calls").read_text().split()) == 3 + 2
    assert [line for line in done.stderr.splitlines() if "Limit" in line] == [
        "SLURM takes no more jobs for now (QOSMaxSubmitJobPerUserLimit; Batch job submission failed: Job violates"
        " accounting/QOS policy); the others are submitted later"
    ]


REFUSED = "SLURM sbatch failed. The error message was 'sbatch: error: {}'.\n    sbatch call:\n        sbatch munge\n"


@pytest.mark.parametrize(
    "message",
    [REFUSED.format("AssocMaxWallDurationPerJobLimit"), "SLURM job '3' failed, SLURM status is: 'MaxSubmitJobs'"],
    ids=["a job that SLURM never takes", "a job that ran"],
)
def test_other_failures_of_jobs_are_reported(message: str) -> None:
    reported = []
    plugin.submitted_later(lambda *given: reported.append(given))(
        SimpleNamespace(_job_submission_executor=None), 1, message
    )
    assert [given[1:] for given in reported] == [(1, message)]
