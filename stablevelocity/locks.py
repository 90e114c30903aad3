"""Locks on files, which the kernel lets go when their holder ends, however it ends; and folders that are one user's."""

import contextlib
import errno
import fcntl
import functools
import os
import stat
from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.progress import log

WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def open_lock(path: Path) -> int:
    """Descriptor of a file to lock, made where it is missing; what is in it stays.

    Raises UserError when it is a link or no regular file: another user may have put it there.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be locked ({error.strerror}); expected a file that you may write") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: cannot be locked; expected a regular file")
    return descriptor


def try_lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Take the lock of an open file if nobody else has it, or `wait` for it; whether it is now ours.

    None on a file system without locks: nobody can know.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        _tell_once()
        return None
    return True


@functools.cache
def _tell_once() -> None:
    log.warning("this file system has no locks: see to it yourself that one process at a time works on a study")


def private_folder(path: Path) -> Path:
    """A folder that nobody but this user can enter, made where it is missing, closed to others where they could read.

    Raises UserError when it is a link, another user's, or open to the writing of others, who may have left files in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UserError(f"{path}: expected a folder of your own, no link ({error.strerror}); remove it") from None
    try:
        state = os.fstat(descriptor)
        if state.st_uid != os.geteuid():
            raise UserError(f"{path}: belongs to another user; expected a folder of your own")
        if state.st_mode & 0o022:
            raise UserError(f"{path}: others may write in it; remove it, or chmod 700 it if you know what is in it")
        if state.st_mode & 0o077:
            os.fchmod(descriptor, stat.S_IMODE(state.st_mode) & ~0o077)
    finally:
        os.close(descriptor)
    return path
