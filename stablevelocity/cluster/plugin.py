"""Patches of Snakemake's executor for SLURM (snakemake-executor-plugin-slurm, pinned), which asks accounting too much.

It looks up the account with sacct, sacctmgr or sshare, without a time limit, before every submission, and turns to
sacct for the states of jobs whenever slurmctld does not answer. On a cluster without accounting, or with a late one,
rules fail or are waited for without end. The account has been tried with `sbatch --test-only` already (preflight.py).
And a job that SLURM takes later only, at a limit on submitted jobs, is an error to it.
"""

import functools
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import snakemake_executor_plugin_slurm as plugin

from stablevelocity.cluster.backends import one_line, taken_later

ASK_AGAIN = 10.0  # seconds
MIN_JOB_AGE = 300  # SLURM's default, seconds


def patch() -> None:
    """Patch the plugin in this process."""
    plugin.Executor.get_account_arg = account_argument  # pyright: ignore[reportAttributeAccessIssue]
    plugin.Executor._report_job_error_threadsafe = submitted_later(plugin.Executor._report_job_error_threadsafe)
    plugin.get_min_job_age = last_answer(plugin.get_min_job_age)


def account_argument(executor: Any, job: Any) -> Iterator[str]:
    """The option of sbatch, taken as it is; given when SLURM answers, as the submission follows at once."""
    wait_for_slurm()
    account = job.resources.get("slurm_account")
    yield f" --account={shlex.quote(str(account))}" if account else ""


def wait_for_slurm() -> None:
    waiting = False
    while subprocess.run(["sinfo", "--noheader"], capture_output=True).returncode != 0:
        if not waiting:
            print("SLURM does not answer (sinfo); submissions wait for it", file=sys.stderr, flush=True)
            waiting = True
        time.sleep(ASK_AGAIN)


def last_answer(ask: Callable[[], int | None]) -> Callable[[], int]:
    """`ask`, with its last answer where it has none: the plugin takes none to mean that squeue forgets jobs at once."""
    last = MIN_JOB_AGE

    def answer() -> int:
        nonlocal last
        last = ask() or last
        return last

    return answer


def submitted_later(report: Callable[..., None]) -> Callable[..., None]:
    """`report` of a job that could not be submitted; one that SLURM may take later is submitted again instead.

    It waits in a thread that submits, so that the others of the study are not asked for in vain.
    """

    def report_or_submit(executor: Any, submitted: Any, message: str) -> None:
        said, _, call = message.partition("\n    sbatch call:")
        threads = executor._job_submission_executor
        if call and taken_later(said) and not threads._shutdown:
            say_once(one_line(said).rstrip("'."))
            time.sleep(ASK_AGAIN)
            if not threads._shutdown:
                threads.submit(executor.run_job, submitted.job)
                return
        report(executor, submitted, message)

    return report_or_submit


@functools.cache
def say_once(said: str) -> None:
    print(f"SLURM takes no more jobs for now ({said}); the others are submitted later", file=sys.stderr, flush=True)
