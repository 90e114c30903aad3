"""What surrounds a call: variables of the environment, the folder it is called from."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bad_inputs.case import Case
from bad_inputs.study_keys import CONFIG
from stablevelocity.errors import UserError

CALL = "from stablevelocity.cli import main; main()"


def called(*words: str, **environment: str) -> Callable[[Path], None]:
    """`stablevelocity <words>` in a process of its own, with these variables."""

    def attempt(folder: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", CALL, *words],
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise UserError(done.stderr.strip())

    return attempt


TINY = ("tiny-model", "--study", str(CONFIG / "pretrained-tiny.yaml"), "--family", "sd35", "--output", "made/x.json")
HUB = ("check", "study.yaml")
STUDY = """
name: x
arms: {cfm: {label: x}}
sampling: {main: ode, samplers: {ode: {}}}
autoencoder: {pretrained: a/b, revision: abc}
"""


def with_study(attempt: Callable[[Path], None]) -> Callable[[Path], None]:
    def written(folder: Path) -> None:
        (folder / "study.yaml").write_text(STUDY)
        attempt(folder)

    return written


def in_a_folder_that_is_gone(folder: Path) -> None:
    (folder / "gone").mkdir()
    line = f"cd {folder / 'gone'} && rmdir {folder / 'gone'} && exec {sys.executable} -c {CALL!r} check study.yaml"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    raise UserError(done.stderr.strip())


ABSENT = r"autoencoder\.pretrained: 'a/b' at abc is not on this machine"
CASES = [
    Case("threads that are a word", called(*TINY, OMP_NUM_THREADS="many"), r"OMP_NUM_THREADS='many'"),
    Case("no threads", called(*TINY, OMP_NUM_THREADS="0"), r"OMP_NUM_THREADS='0'"),
    Case("fewer threads than none", called(*TINY, OMP_NUM_THREADS="-1"), r"OMP_NUM_THREADS='-1'"),
    Case("threads that are empty", called(*TINY, OMP_NUM_THREADS=""), r"OMP_NUM_THREADS=''"),
    Case("an ASCII terminal", called("check", "für.yaml", PYTHONIOENCODING="ascii"), r"f\\xfcr\.yaml: cannot be read"),
    Case(
        "a locale of Latin-1", called("check", "für.yaml", LC_ALL="de_DE.ISO-8859-1"), r"r\.yaml: cannot be read|UTF-8"
    ),
    Case("files in ASCII", called(*TINY, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"), "encoding is .*UTF-8"),
    Case("no home", with_study(called(*HUB, HOME="/nosuch")), ABSENT),
    Case("a cache of the hub that is none", with_study(called(*HUB, HF_HOME="/proc/no")), ABSENT),
    Case("a narrow terminal", called("check", COLUMNS="1"), r"Missing argument 'study'"),
    Case("a folder that is gone", in_a_folder_that_is_gone, r"study\.yaml: cannot be read"),
]
