"""Locks on files, which the kernel lets go when their holder ends, however it ends."""

import fcntl
from typing import TextIO


def try_lock(file: int | TextIO) -> bool:
    """Take the lock of an open file (or descriptor) if nobody else has it; whether it is now ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
