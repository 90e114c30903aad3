"""A command that runs in a fork of the warm start does what it does in a process of its own."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from stablevelocity.cli import warm_start

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the warm start is for Linux")


@pytest.fixture(scope="module")
def server():
    """Process of a server, which the commands of this module find in their environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm_start, "ACCELERATORS", ())
        patch.setattr(warm_start, "_server", [])  # another module's may live in this process
        for name in warm_start.THREAD_VARIABLES:
            patch.setenv(name, "1")
        patch.setenv(warm_start.VARIABLE, "")
        warm_start.start_server()
        (process,) = warm_start._server
        yield process
        process.stdin.close()
        assert process.wait(20) == 0
        warm_start._server.clear()


@pytest.fixture
def study(tmp_path):
    """The smoke study with a toy experiment of many hours."""
    content = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    content["toy"]["updates"] = 10**7
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def start(*arguments, **changed):
    return subprocess.Popen(
        ["stablevelocity", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | changed,
        text=True,
    )


def start_toy(study):
    command = start("--log", study.parent / "log", "toy", "--study", study, "--folder", study.parent / "toy")
    wait_until(lambda: (study.parent / "log").exists())
    return command


def jobs_of(server):
    return Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def variance(folder, **changed):
    outputs = [folder / "curve.csv", folder / "split_point.csv"]
    command = start(
        *("--log", folder / "log", "gmm-variance", "--study", ROOT / "config/smoke.yaml", "--dimension", 10),
        *("--curve", outputs[0], "--split-point", outputs[1]),
        **changed,
    )
    said = command.communicate()
    assert command.returncode == 0, said
    return [file.read_bytes() for file in outputs]


def test_the_same_bits_come_out(server, tmp_path):
    for name in ("warm", "cold"):
        (tmp_path / name).mkdir()
    assert variance(tmp_path / "warm") == variance(tmp_path / "cold", **{warm_start.VARIABLE: ""})


def test_a_command_has_its_own_folder_streams_and_status(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text("name: a study\n")
    ends = []
    for path in (os.environ[warm_start.VARIABLE], ""):
        command = start("check", "study.yaml", **{warm_start.VARIABLE: path})
        ends.append((*command.communicate(), command.returncode))
    assert ends[0] == ends[1]
    assert ends[0][2] == 1
    assert "study.yaml" in ends[0][1]


def test_a_signal_reaches_the_job(server, study):
    command = start_toy(study)
    assert len(jobs_of(server)) == 1
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == -signal.SIGTERM
    assert not jobs_of(server)


def test_a_job_dies_with_its_command(server, study):
    command = start_toy(study)
    command.kill()
    wait_until(lambda: not jobs_of(server))
    command.wait()


def test_commands_of_several_threads_run_in_their_own_process(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert warm_start.run_warm() is None


def test_without_a_server_a_command_runs_in_its_own_process(server, tmp_path, monkeypatch):
    monkeypatch.setenv(warm_start.VARIABLE, str(tmp_path / "ended"))
    assert warm_start.run_warm() is None


def test_jobs_and_server_end_with_the_process_that_started_it(study):
    """Here one that is killed: a Snakemake that gets SIGKILL runs no handler."""
    code = (
        "import subprocess, time\nfrom stablevelocity.cli import warm_start\n"
        "warm_start.ACCELERATORS = ()\nwarm_start.start_server()\nprint(warm_start._server[0].pid, flush=True)\n"
        f"subprocess.run(['stablevelocity', '--log', r'{study.parent / 'log'}', 'toy', '--study', r'{study}',"
        f" '--folder', r'{study.parent / 'toy'}'])"
    )
    threads = dict.fromkeys(warm_start.THREAD_VARIABLES, "1") | {warm_start.VARIABLE: ""}
    starter = subprocess.Popen(["python", "-c", code], stdout=subprocess.PIPE, env=os.environ | threads, text=True)
    server = int(starter.stdout.readline())
    wait_until(lambda: (study.parent / "log").exists())
    (job,) = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    starter.kill()
    starter.wait()
    wait_until(lambda: all(is_over(process) for process in (server, job)))


def is_over(process):
    """Whether it has ended, be it that nobody has asked for its status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
