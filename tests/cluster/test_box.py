"""The cluster of the tests says at once, and in one line, why it cannot be had."""

import os
from pathlib import Path

import pytest
from box import Box, NoDatabase

pytestmark = pytest.mark.slurm


def test_a_database_that_cannot_start_is_one_line_with_its_reason(tmp_path: Path, monkeypatch) -> None:
    for name, script in {
        "mariadb-install-db": "exit 0",
        "mariadbd": "echo '[ERROR] InnoDB: io_setup() failed with EAGAIN' >&2; exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    why = r"^the database cannot start: \[ERROR\] InnoDB: io_setup"
    with pytest.raises(NoDatabase, match=why), Box(accounting=True):
        pass
