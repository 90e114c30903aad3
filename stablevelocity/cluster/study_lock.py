"""One Snakemake at a time works on a study, and one that was killed leaves nothing that must be cleared by hand.

Snakemake's own lock files outlive `kill -9` or a closed terminal, and one Snakemake that ends removes those of all
others. So each holds a lock of the kernel on results/<study>/lock as well, for as long as it lives, and touches that
file every minute: not every file system tells one host of the locks of another.
"""

import atexit
import os
import socket
import sys
import threading
import time
import uuid
from datetime import datetime
from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.locks import open_lock, try_lock
from stablevelocity.progress import log
from stablevelocity.study.layout import Layout

SNAKEMAKE_LOCKS = Path(".snakemake/locks")
SIGN_EVERY = 60.0  # seconds between two touches of the lock by its holder
DEAD_AFTER = 600.0  # seconds without a touch
_held: list[int] = []  # open as long as this process lives


def remove_stale_locks(layout: Layout) -> None:
    """Remove Snakemake's lock files of this study when the process that made them is dead.

    It is when it was one of this host and the lock is free, or when it gave no sign for ten minutes. Raises UserError
    when nobody can know, with the command that unlocks.
    """
    mine = [file for file in SNAKEMAKE_LOCKS.glob("*.lock") if f"{layout.root}/" in file.read_text()]
    lock = Path(layout.lock)
    if not mine or not lock.exists() or "--unlock" in sys.argv:
        return
    descriptor = open_lock(lock)
    try:
        free, holder = try_lock(descriptor), _holder(descriptor)
    finally:
        os.close(descriptor)
    if free is False or not holder:
        return  # one that lives holds the lock: `acquire_study_lock` says so
    silent = _clock_of(lock.parent) - lock.stat().st_mtime
    if not (free and holder[0] == socket.gethostname()):
        if silent < DEAD_AFTER:
            raise UserError(
                f"{layout.root}: locked by snakemake, {_text(holder)}, whose last sign is {silent:.0f} s old; if it is "
                f"dead, wait until {DEAD_AFTER:.0f} s have passed, or: snakemake --unlock"
            )
        log.info(f"{layout.root}: the lock of {_text(holder)} is removed: no sign of it for {silent / 60:.0f} minutes")
    for file in mine:
        file.unlink(missing_ok=True)


def acquire_study_lock(layout: Layout) -> None:
    """Lock the study until this process ends. Raises UserError when another process works on it."""
    Path(layout.root).mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(Path(layout.lock))
    deadline = time.monotonic() + 2  # one that only looks for stale locks has the lock for a moment
    while try_lock(descriptor) is False:
        if time.monotonic() > deadline:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise UserError(f"{layout.root}: another snakemake works on it ({_text(holder)})")
        time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    since = datetime.now().isoformat(sep=" ", timespec="seconds")
    os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()} {since}\n".encode(), 0)
    _held.append(descriptor)
    threading.Thread(target=_give_signs, args=[descriptor], daemon=True).start()
    atexit.register(os.ftruncate, descriptor, 0)  # after a clean end no process is named


def _give_signs(descriptor: int) -> None:
    while True:
        time.sleep(SIGN_EVERY)
        os.utime(descriptor)


def _holder(descriptor: int) -> list[str]:
    """[host, process, since] of the one that wrote the lock; empty after a clean end."""
    return os.pread(descriptor, 1000, 0).decode(errors="replace").split(maxsplit=2)


def _text(holder: list[str]) -> str:
    host, process, since = [*(part.strip() for part in holder), "?", "?", "?"][:3]
    return f"process {process} on {host} since {since}"


def _clock_of(folder: Path) -> float:
    """The time by the clock of a file system, which may be another host's."""
    file = folder / f".clock.{uuid.uuid4().hex[:8]}"
    file.touch()
    try:
        return file.stat().st_mtime
    finally:
        file.unlink()
