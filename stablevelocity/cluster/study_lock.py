"""One Snakemake at a time works on a study, and one that was killed leaves nothing that must be cleared by hand.

Snakemake's own lock files outlive `kill -9` or a closed terminal, and one Snakemake that ends removes those of all
others. So each holds a lock of the kernel on results/<study>/lock as well, for as long as it lives.
"""

import atexit
import os
import socket
import time
from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.locks import open_lock, try_lock
from stablevelocity.study.layout import Layout

SNAKEMAKE_LOCKS = Path(".snakemake/locks")
_held: list[int] = []  # open as long as this process lives


def remove_stale_locks(layout: Layout) -> None:
    """Remove Snakemake's lock files of this study when the process that made them died on this host."""
    mine = [file for file in SNAKEMAKE_LOCKS.glob("*.lock") if f"{layout.root}/" in file.read_text()]
    if not mine or not Path(layout.lock).exists():
        return
    descriptor = open_lock(Path(layout.lock))
    try:
        # One that lives holds the lock: Snakemake says so. Where the file system does not pass locks on to other
        # hosts, nothing is known of theirs.
        if try_lock(descriptor) and os.read(descriptor, 1000).decode().split()[:1] == [socket.gethostname()]:
            for file in mine:
                file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def acquire_study_lock(layout: Layout) -> None:
    """Lock the study until this process ends. Raises UserError when another process works on it."""
    Path(layout.root).mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(Path(layout.lock))
    deadline = time.monotonic() + 2  # one that only looks for stale locks has the lock for a moment
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            host, process = [*os.read(descriptor, 1000).decode().split(), "?", "?"][:2]
            os.close(descriptor)
            raise UserError(f"{layout.root}: another snakemake works on it (process {process} on {host})")
        time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
    _held.append(descriptor)
    atexit.register(os.ftruncate, descriptor, 0)  # after a clean end no process is named
