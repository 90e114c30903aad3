"""Locks and private folders, where another user may have put something first."""

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from stablevelocity.cluster.backends import LocalProcesses, Slurm
from stablevelocity.cluster.site import Site
from stablevelocity.cluster.study_lock import acquire_study_lock, remove_stale_locks
from stablevelocity.cluster.tasks import is_locked
from stablevelocity.errors import UserError
from stablevelocity.locks import open_lock, private_folder, try_lock
from stablevelocity.study.layout import Layout


@pytest.fixture
def open_umask():
    """As on machines where a group works in shared folders, and worse."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def one_line(error: pytest.ExceptionInfo) -> bool:
    return str(error.value).isprintable()


def test_a_lock_is_one_holder_s_and_free_when_that_one_ends(tmp_path: Path) -> None:
    first, second = open_lock(tmp_path / "lock"), open_lock(tmp_path / "lock")
    assert try_lock(first)
    assert not try_lock(second)
    assert is_locked(tmp_path / "lock")
    os.close(first)
    assert not is_locked(tmp_path / "lock")
    assert try_lock(second)
    os.close(second)


def test_a_lock_leaves_what_is_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("host 12")
    os.close(open_lock(tmp_path / "lock"))
    assert (tmp_path / "lock").read_text() == "host 12"


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device"])
def test_a_lock_is_never_taken_through_a_link_or_on_what_is_no_file(tmp_path: Path, kind: str) -> None:
    lock, victim = tmp_path / "lock", tmp_path / "victim"
    if kind == "link":
        victim.write_text("precious")
        lock.symlink_to(victim)
    elif kind == "dangling link":
        lock.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock = Path("/dev/null")
    with pytest.raises(UserError, match="cannot be locked") as error:
        open_lock(lock)
    assert one_line(error)
    assert not is_locked(lock)
    assert victim.exists() == (kind == "link")
    assert kind != "link" or victim.read_text() == "precious"


def test_the_lock_of_a_study_does_not_empty_the_file_behind_a_link(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    results = Path("results/mine")
    results.mkdir(parents=True)
    (results / "lock").symlink_to(victim)
    with pytest.raises(UserError, match="results/mine/lock: cannot be locked"):
        acquire_study_lock(Layout(str(results)))
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.lock").write_text("results/mine/report.html\n")
    with pytest.raises(UserError, match="results/mine/lock: cannot be locked"):
        remove_stale_locks(Layout(str(results)))
    assert victim.read_text() == "precious"


def test_a_private_folder_is_closed_to_all_others_whatever_the_umask(tmp_path: Path, open_umask) -> None:
    assert private_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert mode(tmp_path / "a" / "b") == 0o700
    private_folder(tmp_path / "a" / "b")  # it may be there already


def test_a_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(0o755)
    private_folder(tmp_path / "logs")
    assert mode(tmp_path / "logs") == 0o700


def intruded(path: Path, kind: str) -> None:
    if kind == "link":
        path.with_name("elsewhere").mkdir(mode=0o700)
        path.symlink_to(path.with_name("elsewhere"))
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod({"of the group": 0o770, "of all": 0o777}.get(kind, 0o700))
        if kind == "of another user":
            os.chown(path, 12345, -1)


KINDS = ["link", "file", "of the group", "of all"]
ANOTHER = pytest.param(
    "of another user", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")
)


@pytest.mark.parametrize("kind", [*KINDS, ANOTHER])
def test_a_folder_in_which_another_could_have_been_is_refused(tmp_path: Path, kind: str) -> None:
    intruded(tmp_path / "private", kind)
    with pytest.raises(UserError, match="private: ") as error:
        private_folder(tmp_path / "private")
    assert one_line(error)


@pytest.mark.parametrize("kind", [*KINDS, ANOTHER])
@pytest.mark.parametrize("backend", [Slurm, LocalProcesses])
def test_no_job_starts_from_a_folder_in_which_another_could_have_been(tmp_path: Path, kind: str, backend) -> None:
    """A submitted job is a pickle: who can write it has its user's rights."""
    intruded(tmp_path / "logs", kind)
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="logs: "):
        backend(Site()).submit(print, "name", tmp_path / "logs")
    assert {path for path in tmp_path.rglob("*")} == before


def test_the_pickle_of_a_job_lies_where_only_its_user_comes(tmp_path: Path, open_umask) -> None:
    folder = tmp_path / "job" / "logs"
    LocalProcesses(Site()).submit(print, "name", folder)
    assert mode(folder) == 0o700
    assert list(folder.glob("*.pkl"))


@pytest.fixture
def locked_study(tmp_path: Path, monkeypatch) -> Path:
    """A study that a Snakemake left locked: its lock files are there, and nobody holds the lock of the kernel."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").write_text("results/mine/report.html\n")
    lock = tmp_path / "results" / "mine" / "lock"
    lock.parent.mkdir(parents=True)
    return lock


def left(lock: Path, host: str, age: float) -> bool:
    """Whether Snakemake's lock files are left after a start."""
    lock.write_text(f"{host} 123 2026-01-02 03:04:05\n")
    os.utime(lock, (time.time() - age, time.time() - age))
    remove_stale_locks(Layout("results/mine"))
    return bool(list(Path(".snakemake/locks").iterdir()))


def test_the_locks_of_a_dead_process_of_this_host_are_removed_at_once(locked_study: Path) -> None:
    assert not left(locked_study, socket.gethostname(), 0)


def test_a_head_of_another_host_that_gave_a_sign_lately_is_named_with_the_command(locked_study: Path) -> None:
    with pytest.raises(
        UserError, match=r"process 123 on login7 since 2026-01-02 03:04:05.*snakemake --unlock"
    ) as error:
        left(locked_study, "login7", 60)
    assert one_line(error)
    assert list(Path(".snakemake/locks").iterdir())


def test_a_head_of_another_host_that_gave_no_sign_for_ten_minutes_is_dead(locked_study: Path) -> None:
    assert not left(locked_study, "login7", 601)


def test_a_holder_of_the_lock_gives_signs(locked_study: Path, monkeypatch) -> None:
    monkeypatch.setattr("stablevelocity.cluster.study_lock.SIGN_EVERY", 0.01)
    acquire_study_lock(Layout("results/mine"))
    assert locked_study.read_text().split()[:2] == [socket.gethostname(), str(os.getpid())]
    os.utime(locked_study, (0, 0))
    deadline = time.monotonic() + 30
    while locked_study.stat().st_mtime < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert locked_study.stat().st_mtime > 1
