"""The head of a training run, without SLURM: real processes of this machine, or a queue that answers from a script."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from box import HERE
from slow_training import SlowTask, slow_task
from tiny_training import tiny_run, write_data

from stablevelocity.cluster.head import Head
from stablevelocity.cluster.launch import launch
from stablevelocity.cluster.overview import overview
from stablevelocity.cluster.preflight import check_slurm
from stablevelocity.cluster.resources import LARGE, SMALL, need
from stablevelocity.cluster.schedulers import Unreachable, clean_environment, one_line
from stablevelocity.cluster.site import Site, load_site
from stablevelocity.cluster.tasks import batches, last_row
from stablevelocity.errors import UserError
from stablevelocity.files import write_json
from stablevelocity.study import load_study, study_json

ROOT = Path(__file__).parents[2]
SITE = Site.model_validate({"poll_seconds": 0.01})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture
def task(data: Path, tmp_path: Path) -> SlowTask:
    return slow_task(data, tmp_path / "runs", "a", 0.0, 20)


class Queue:
    """A scheduler whose jobs do, at every look, the next thing of a script; each submission takes the next script."""

    def __init__(self, *scripts: list[str | Callable[[], str]]):
        self.scripts = list(scripts)
        self.jobs: dict[str, list[str | Callable[[], str]]] = {}
        self.names: dict[str, str] = {}

    def submit(self, job: Callable[[], None], name: str, folder: Path) -> str:
        job_id = str(len(self.jobs) + 1)
        self.jobs[job_id] = self.scripts.pop(0)
        self.names[name] = job_id
        return job_id

    def find(self, name: str) -> str | None:
        return self.names.get(name)

    def state(self, job_id: str) -> str:
        script = self.jobs[job_id]
        step = script.pop(0) if len(script) > 1 else script[0]
        return step if isinstance(step, str) else step()

    def cancel_command(self, job_id: str) -> str:
        return f"scancel {job_id}"


def head(task: SlowTask, queue: Queue) -> Head:
    return Head([task], "slurm", queue, SITE)


def finishing(task: SlowTask) -> Callable[[], str]:
    def finish() -> str:
        task.train()
        return "COMPLETED"

    return finish


def silent(task: SlowTask, step: int) -> Callable[[], str]:
    """A job that leaves a checkpoint of `step` and is gone."""

    def die() -> str:
        task.checkpoints.mkdir(parents=True, exist_ok=True)
        (task.checkpoints / f"step-{step:08d}.safetensors").write_bytes(b"")
        return "FAILED"

    return die


def test_a_word_of_the_scheduler_is_no_result_and_a_result_needs_no_word(task: SlowTask) -> None:
    """COMPLETED without weights counts as death; weights under a state of FAILED count as success."""

    def finish_but_fail() -> str:
        task.train()
        return "FAILED"

    queue = Queue(["RUNNING", "COMPLETED"], ["RUNNING", finish_but_fail])
    head(task, queue).wait()
    assert task.complete()
    assert (task.folder / "weights" / "step-00000020.safetensors").exists()
    assert list(queue.jobs) == ["1", "2"]


def test_jobs_that_die_without_progress_end_the_run_and_those_with_progress_do_not(task: SlowTask) -> None:
    queue = Queue(*[["RUNNING", silent(task, step)] for step in (1, 2, 3, 4, 4, 4, 4, 4)])
    with pytest.raises(UserError, match="3 jobs in a row died at step 4") as caught:
        head(task, queue).wait()
    assert len(queue.jobs) == 7
    assert str(task.logs) in str(caught.value)


@pytest.mark.parametrize(
    "state, message",
    [("CANCELLED", "job 1 was cancelled"), ("OUT_OF_MEMORY", "needs more memory than training.mem_gb: 4")],
)
def test_a_cancelled_job_and_one_out_of_memory_are_not_tried_again(task: SlowTask, state: str, message: str) -> None:
    queue = Queue(["RUNNING", state], ["RUNNING"])
    with pytest.raises(UserError, match=message):
        head(task, queue).wait()
    assert list(queue.jobs) == ["1"]


def test_what_the_training_says_itself_ends_the_run(task: SlowTask) -> None:
    def say() -> str:
        record = task.record()
        assert record
        said = {"hash": task.hash, "name": record["name"], "attempt": "x", "starts": 1, "state": "failed"}
        write_json(task.state_file, said | {"final": True, "message": "the loss is not finite"})
        return "FAILED"

    with pytest.raises(UserError, match="a: the loss is not finite"):
        head(task, Queue(["RUNNING", say])).wait()


def test_a_scheduler_that_does_not_answer_is_waited_for(task: SlowTask, caplog: pytest.LogCaptureFixture) -> None:
    def silence() -> str:
        raise Unreachable("connection refused")

    caplog.set_level("INFO")
    queue = Queue(["RUNNING", silence, silence, "RUNNING", finishing(task)])
    head(task, queue).wait()
    assert list(queue.jobs) == ["1"]
    assert "no answer from the scheduler, waiting (connection refused)" in caplog.text


def test_a_head_that_died_while_it_submitted_leaves_one_job(task: SlowTask) -> None:
    """Between the submission and its note there is a moment; the name was noted before."""
    queue = Queue(["RUNNING", "RUNNING", "RUNNING", finishing(task)])
    first = head(task, queue)
    first.look([task])
    record = task.record()
    assert record
    task.write_record(**{**record, "job": None})
    head(task, queue).wait()
    assert list(queue.jobs) == ["1"]


def test_runs_of_one_job_are_submitted_once(data: Path, tmp_path: Path) -> None:
    tasks = [slow_task(data, tmp_path / "runs", name, 0.0, 20) for name in ("a", "b", "c")]

    def finish() -> str:
        for task in tasks:
            task.train()
        return "COMPLETED"

    queue = Queue(["RUNNING", finish])
    Head(list(tasks), "slurm", queue, SITE).wait()
    assert list(queue.jobs) == ["1"]
    assert [len(part) for part in batches([tiny_run()] * 7, 3)] == [3, 3, 1]


def test_finished_weights_of_other_settings_or_cut_short_do_not_count(task: SlowTask, data: Path) -> None:
    task.train()
    assert task.complete()
    other = slow_task(data, task.folder.parent, "a", 0.0, 30)
    assert not other.complete()
    weights = task.checkpoints / "result" / "step-00000020.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert not task.complete()


def test_wiped_outputs_come_back_without_training(task: SlowTask) -> None:
    """Snakemake deletes what a rule declares before it starts it again."""
    launch([task], "local", SITE)
    published = [task.folder / "metrics.csv", task.folder / "weights" / "step-00000020.safetensors"]
    before = [path.read_bytes() for path in published]
    for path in published:
        path.unlink()
    head(task, Queue()).wait()
    assert [path.read_bytes() for path in published] == before
    assert sorted(path.name for path in (task.folder / "weights").iterdir()) == ["step-00000020.safetensors"]


# --- processes of this machine -----------------------------------------------------------------------------


def start_head(data: Path, folder: Path, seconds: float, steps: int) -> subprocess.Popen[str]:
    site = folder / "site.yaml"
    site.write_text("poll_seconds: 0.2\n")
    script = str(HERE / "slow_training.py")
    arguments = [str(data), str(folder / "runs"), "a", "submitit-local", str(site), str(seconds), str(steps)]
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent / 'training'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_after_ctrl_c_twice_the_processes_go_on_and_the_next_head_waits_for_them(data: Path, tmp_path: Path) -> None:
    first = start_head(data, tmp_path, 0.05, 40)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/a/checkpoints/*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    assert first.stderr
    while "Ctrl-C again leaves" not in (line := first.stderr.readline()):
        told = line
    assert re.search(r"train a: job (\d+)\.\d+ goes on; to stop it: kill \1$", told)
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(60) == 130
    second = start_head(data, tmp_path, 0.05, 40)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert "submitted" not in said
    assert "train a: finished, 40 steps" in said


# --- what is read and said ---------------------------------------------------------------------------------


def test_an_outer_job_leaves_no_trace_in_what_is_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_CONF", "SUBMITIT_EXECUTOR", "RANK", "MY_OWN"):
        monkeypatch.setenv(name, "7")
    with clean_environment():
        left = {name for name in os.environ if os.environ[name] == "7"}
    assert left == {"SLURM_CONF", "MY_OWN"}
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_the_example_of_a_site_file_is_valid_and_a_missing_one_means_defaults(tmp_path: Path) -> None:
    assert load_site(ROOT / "config" / "site.example.yaml").training.gpus == 4
    assert load_site(tmp_path / "none.yaml") == Site()


@pytest.mark.parametrize(
    "text, message",
    [
        ("acount: x", "acount: no such key"),
        ("training: {minutes: 0}", "training.minutes: Input should be greater than 0, given 0"),
        ("setup: [", "cannot be read"),
    ],
)
def test_a_mistake_in_the_site_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_site(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_sbatch_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"^sbatch is not on PATH; expected a login node of a SLURM cluster$"):
        check_slurm(Site(), {})


def test_every_rule_of_the_table_of_resources_exists() -> None:
    rules = set(re.findall(r"^\s*rule (\w+):", "".join(p.read_text() for p in ROOT.glob("workflow/rules/*.smk")), re.M))
    assert (set(SMALL) | set(LARGE)) - rules == set()


def test_the_site_file_overrides_the_table_of_resources() -> None:
    site = Site.model_validate({"rules": {"toy": {"minutes": 5, "mem_gb": 1}}})
    assert need("toy", load_study(ROOT / "config" / "smoke.yaml"), site) == (5, 1, 1, 0)


def test_a_row_that_is_just_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n10,0.5\n20,0.25\n30,0.")
    assert last_row(path) == {"step": 20, "loss": 0.25}


def test_what_slurm_says_becomes_one_line() -> None:
    said = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid name\n"
    assert one_line(said) == "invalid partition specified: x; Batch job submission failed: Invalid name"


def test_the_overview_tells_finished_started_and_failed_runs_apart(tmp_path: Path) -> None:
    study = load_study(ROOT / "config" / "smoke.yaml")
    (tmp_path / "study.json").write_text(study_json(study))
    done = tmp_path / "runs" / "cfm-s0"
    (done / "weights").mkdir(parents=True)
    (done / "weights" / "step-00000020.safetensors").touch()
    other = tmp_path / "runs" / "stablevm-va-s0" / "checkpoints" / "0123"
    other.mkdir(parents=True)
    (other / "step-00000010.safetensors").touch()
    (other / "metrics.csv").write_text("step,loss,images_per_s\n15,0.5,100\n")
    lines = [re.split(r"  +", line) for line in overview(tmp_path).splitlines()]
    assert lines[1][:2] == ["cfm-s0", "finished"]
    assert lines[2] == ["stablevm-va-s0", "started", "-", "15", "20", "0 min ago", "0", "-"]
    with pytest.raises(UserError, match=r"no study.json in it"):
        overview(tmp_path / "runs")
