"""The submitter of training runs, without SLURM: processes of this machine, or a queue that answers from a list."""

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from box import HERE
from slow_training import BrokenTask, SlowTask, slow_task
from tiny_run import tiny_run
from tiny_training import write_data

from stablevelocity.cluster.backends import Slurm, Unreachable, clean_environment, one_line
from stablevelocity.cluster.launch import launch
from stablevelocity.cluster.overview import overview, table
from stablevelocity.cluster.preflight import check_slurm, check_training
from stablevelocity.cluster.resources import (
    PACKS,
    RULES,
    check_rules,
    need,
    pack_minutes,
    snakemake_resources,
    training_resources,
    units_per_job,
)
from stablevelocity.cluster.site import Site, load_site
from stablevelocity.cluster.submitter import Submitter
from stablevelocity.cluster.tasks import batches, last_row
from stablevelocity.errors import UserError
from stablevelocity.files import write_json
from stablevelocity.locks import _tell_once
from stablevelocity.study import load_study, study_json
from stablevelocity.study.layout import Layout

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
    """A backend whose jobs do, at every look, the next thing of a script; each submission takes the next script."""

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

    def states(self, job_ids: list[str]) -> dict[str, str]:
        return {job_id: self.state(job_id) for job_id in job_ids}

    def state(self, job_id: str) -> str:
        script = self.jobs[job_id]
        step = script.pop(0) if len(script) > 1 else script[0]
        return step if isinstance(step, str) else step()

    def cancel_command(self, job_id: str) -> str:
        return f"scancel {job_id}"


def submitter(task: SlowTask, queue: Queue) -> Submitter:
    return Submitter([task], "slurm", queue, SITE)


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
    submitter(task, queue).wait()
    assert task.complete()
    assert (task.folder / "weights" / "step-00000020.safetensors").exists()
    assert list(queue.jobs) == ["1", "2"]


def test_jobs_that_die_without_progress_end_the_run_and_those_with_progress_do_not(task: SlowTask) -> None:
    queue = Queue(*[["RUNNING", silent(task, step)] for step in (1, 2, 3, 4, 4, 4, 4, 4)])
    with pytest.raises(UserError, match="3 jobs in a row died at step 4") as caught:
        submitter(task, queue).wait()
    assert len(queue.jobs) == 7
    assert str(task.files.logs) in str(caught.value)


@pytest.mark.parametrize(
    "state, message",
    [("CANCELLED", "job 1 was cancelled"), ("OUT_OF_MEMORY", "needs more memory than training.mem_gb: 4")],
)
def test_a_cancelled_job_and_one_out_of_memory_are_not_tried_again(task: SlowTask, state: str, message: str) -> None:
    queue = Queue(["RUNNING", state], ["RUNNING"])
    with pytest.raises(UserError, match=message):
        submitter(task, queue).wait()
    assert list(queue.jobs) == ["1"]


def test_what_the_training_says_itself_ends_the_run(task: SlowTask) -> None:
    def say() -> str:
        record = task.record()
        assert record
        said = {"hash": task.hash, "name": record["name"], "attempt": "x", "starts": 1, "state": "failed"}
        write_json(task.files.state, said | {"final": True, "message": "the loss is not finite"})
        return "FAILED"

    with pytest.raises(UserError, match="a: the loss is not finite"):
        submitter(task, Queue(["RUNNING", say])).wait()


def test_a_scheduler_that_does_not_answer_is_waited_for(task: SlowTask, caplog: pytest.LogCaptureFixture) -> None:
    def silence() -> str:
        raise Unreachable("connection refused")

    caplog.set_level("INFO")
    queue = Queue(["RUNNING", silence, silence, "RUNNING", finishing(task)])
    submitter(task, queue).wait()
    assert list(queue.jobs) == ["1"]
    assert "no answer from the scheduler, waiting (connection refused)" in caplog.text


def test_a_submitter_that_died_while_it_submitted_leaves_one_job(task: SlowTask) -> None:
    """Between the submission and its note there is a moment; the name was noted before."""
    queue = Queue(["RUNNING", "RUNNING", "RUNNING", finishing(task)])
    first = submitter(task, queue)
    first.look([task])
    record = task.record()
    assert record
    task.write_record(**{**record, "job": None})
    submitter(task, queue).wait()
    assert list(queue.jobs) == ["1"]


def test_runs_of_one_job_are_submitted_once(data: Path, tmp_path: Path) -> None:
    tasks = [slow_task(data, tmp_path / "runs", name, 0.0, 20) for name in ("a", "b", "c")]

    def finish() -> str:
        for task in tasks:
            task.train()
        return "COMPLETED"

    queue = Queue(["RUNNING", finish])
    Submitter(list(tasks), "slurm", queue, SITE).wait()
    assert list(queue.jobs) == ["1"]
    assert [len(part) for part in batches([tiny_run()] * 7, 3)] == [3, 3, 1]


def test_a_run_whose_job_died_of_another_run_is_not_blamed(data: Path, tmp_path: Path) -> None:
    """Of runs a, b, c in one job, a ends every job that begins with it."""
    tasks = [slow_task(data, tmp_path / "runs", name, 0.0, 20) for name in ("a", "b", "c")]

    def break_at_a() -> str:
        record = tasks[0].record()
        assert record
        said = {"hash": tasks[0].hash, "name": record["name"], "attempt": "x", "starts": 1, "state": "failed"}
        write_json(tasks[0].files.state, said | {"final": True, "message": "the loss is not finite"})
        return "FAILED"

    def finish() -> str:
        for task in tasks[1:]:
            task.train()
        return "COMPLETED"

    queue = Queue(["RUNNING", break_at_a], ["RUNNING", finish])
    with pytest.raises(UserError, match=r"^a: the loss is not finite \(job 1, [^;]*$"):
        Submitter(list(tasks), "slurm", queue, SITE).wait()
    assert list(queue.jobs) == ["1", "2"]
    published = [(task.folder / "weights" / "step-00000020.safetensors").exists() for task in tasks]
    assert published == [False, True, True]


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
    submitter(task, Queue()).wait()
    assert [path.read_bytes() for path in published] == before
    assert sorted(path.name for path in (task.folder / "weights").iterdir()) == ["step-00000020.safetensors"]


# --- processes of this machine -----------------------------------------------------------------------------


@pytest.fixture
def held(data: Path, tmp_path: Path) -> Iterator[SlowTask]:
    """A run of 40 steps that goes on after its first checkpoint when the file `hold` is gone."""
    held = slow_task(data, tmp_path / "runs", "a", 0.0, 40)
    held.hold.parent.mkdir()
    held.hold.touch()
    yield held
    held.hold.unlink(missing_ok=True)


def start_submitter(task: SlowTask, launcher: str) -> subprocess.Popen[str]:
    site = task.folder.with_name("site.yaml")
    site.write_text("poll_seconds: 0.2\n")
    data = task.latents.parents[1]
    arguments = [str(data), str(task.folder.parent), "a", launcher, str(site), "0", str(task.run.training.steps)]
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent / 'training'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "slow_training.py"), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120  # a limit for a test that hangs, not a promise
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """The lines that a process says until one has these words."""
    assert process.stderr
    lines = [process.stderr.readline()]
    while words not in lines[-1]:
        assert lines[-1], f"it has ended: {lines}"
        lines.append(process.stderr.readline())
    return lines


def test_after_ctrl_c_twice_the_processes_go_on_and_the_next_submitter_waits_for_them(held: SlowTask) -> None:
    first = start_submitter(held, "submitit-local")
    wait_until(held.last_step)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    told = read_until(first, "Ctrl-C again leaves")[-2]
    assert re.search(r"train a: job (\d+)\.\d+ goes on; to stop it: kill \1$", told)
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(60) == 130
    second = start_submitter(held, "submitit-local")
    before = "".join(read_until(second, "RUNNING"))
    held.hold.unlink()
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert "submitted" not in before + said
    assert "train a: finished, 40 steps" in said


def test_after_a_run_that_fails_for_good_the_next_of_its_job_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs in one job of two processes: the first fails, on both."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent / 'training'}")
    site = Site.model_validate({"poll_seconds": 0.1, "training": {"processes": 2, "runs_per_job": 2}})
    second = slow_task(data, tmp_path / "runs", "b", 0.0, 20)
    first = BrokenTask(second.run.model_copy(update={"name": "a"}), second.latents, None, tmp_path / "runs" / "a")
    with pytest.raises(UserError, match=r"^a: the loss is not finite"):
        launch([first, second], "submitit-local", site)
    assert (second.folder / "weights" / "step-00000020.safetensors").exists()
    lines = [
        re.split("  +", line) for line in table({"a": first.run, "b": second.run}, Layout(str(tmp_path))).splitlines()
    ]
    assert [line[1] for line in lines[1:]] == ['failed: "the loss is not finite"', "finished"]


def test_two_that_train_one_run_in_their_own_processes_take_turns(held: SlowTask) -> None:
    """As when Snakemake was killed and started again, and the training of before lives."""
    first = start_submitter(held, "local")
    wait_until(held.last_step)
    told = re.split("  +", table({"a": held.run}, Layout(str(held.folder.parents[1]))).splitlines()[1])
    second = start_submitter(held, "local")
    # Until it waits for the lock: /proc/locks has an arrow there.
    lock = f":{held.files.lock.stat().st_ino} "
    wait_until(lambda: [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line and lock in line])
    held.hold.unlink()
    said = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert "continues from step" not in said[1]  # there was nothing left to do
    assert told[:2] == ["a", "RUNNING"]
    assert re.fullmatch(r"\d+:\d\d", told[-1])


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_run_is_trained_where_the_file_system_has_no_locks(
    task: SlowTask, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    _tell_once.cache_clear()
    launch([task], "local", SITE)
    assert task.complete()
    assert len([record for record in caplog.records if "has no locks" in record.message]) == 1


# --- SLURM's answers, from commands that say what the real ones say ----------------------------------------


POLICY = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time)"


@pytest.mark.parametrize(
    "said, error",
    [
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", Unreachable),
        ("Slurm temporarily unable to accept job, sleeping and retrying", Unreachable),
        (f"QOSMaxSubmitJobPerUserLimit\nsbatch: error: {POLICY}", Unreachable),
        (f"AssocGrpSubmitJobsLimit\nsbatch: error: {POLICY}", Unreachable),
        (f"AssocMaxWallDurationPerJobLimit\nsbatch: error: {POLICY}", UserError),
        ("invalid partition specified: x", UserError),
    ],
)
def test_what_sbatch_refuses_for_now_is_waited_for_and_what_it_never_takes_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, error: type[Exception]
) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(f'#!/bin/sh\ncat >&2 <<"END"\nsbatch: error: {said}\nEND\nexit 1\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(error):
        Slurm(SITE).submit(print, "name", tmp_path / "logs")


def test_every_process_of_a_job_has_the_cores_that_the_job_asked_for(tmp_path: Path, monkeypatch) -> None:
    """srun of SLURM 22.05 to 23.02 does not take their number over from the job."""
    script = tmp_path / "submitted.sh"
    for name, does in {"sbatch": f'cp "$1" {script}; echo Submitted batch job 7', "srun": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    site = SITE.model_copy(update={"training": SITE.training.model_copy(update={"cpus": 5})})
    assert Slurm(site).submit(print, "name", tmp_path / "logs") == "7"
    (started,) = [line for line in script.read_text().splitlines() if line.startswith("srun")]
    assert "--cpus-per-task=5" in started.split()


def test_a_preempted_job_is_no_fault_of_its_run(task: SlowTask) -> None:
    queue = Queue(*[["RUNNING", "PREEMPTED"]] * 5, ["RUNNING", finishing(task)])
    submitter(task, queue).wait()
    assert len(queue.jobs) == 6


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
        ("setup: [", "line 1 is not YAML"),
        ("account: a\naccount: b", "line 2: the key 'account' stands twice"),
        ('"a\\nb": 1', r"'a\nb': no such key"),
        *(
            (json.dumps(content), "String should match pattern")
            for word in ("x y", "a\nb", "`touch PWNED`", "$(touch PWNED)", "x'y", "{nope}", "")
            for key in ("account", "qos", "gres", "constraint")
            for content in ({key: word}, {"partitions": {"gpu": word}})
        ),
    ],
)
def test_a_mistake_in_the_site_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_site(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"account": "physics_2026.a", "qos": "high-prio", "partitions": {"cpu": "cpu,long", "gpu": "a100"}},
        {"gres": "gpu:nvidia_a100-sxm4:{gpus},shard:2(S:0-1)", "constraint": "[rack1*2&rack2*4]|(a100&nvlink)"},
    ],
)
def test_words_that_sbatch_knows_are_taken(tmp_path: Path, content: dict) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(json.dumps(content))
    assert load_site(path).model_dump(exclude_unset=True) == content


def test_without_sbatch_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"^sbatch is not on PATH; expected a login node of a SLURM cluster$"):
        check_slurm(Site(), {})


def test_the_table_of_resources_has_the_rules_that_become_jobs_and_no_others() -> None:
    text = "".join(path.read_text() for path in ROOT.glob("workflow/rules/*.smk"))
    rules = re.findall(r"^ *rule (\w+):\n(.*?)(?=^ *rule|\Z)", text, re.M | re.S)
    jobs = {name: body for name, body in rules if "localrule: True" not in body and "output:" in body}
    assert set(RULES) == set(jobs)
    assert [name for name, body in jobs.items() if f'**needs("{name}")' not in body] == []


def test_generation_with_the_original_models_asks_for_a_gpu_and_with_tiny_ones_for_none() -> None:
    needs = {name: load_study(ROOT / "config" / f"{name}.yaml") for name in ("pretrained", "pretrained-tiny")}
    assert need("generate_arms", needs["pretrained-tiny"], Site()).gpus == 0
    original = snakemake_resources("generate_arms", needs["pretrained"], Site())
    assert original["gpu"] == 1
    assert original["mem_mb"] >= 64 * 1024
    assert original["runtime"] >= 8 * 60
    assert need("score_family", needs["pretrained"], Site()).gpus == 1


def test_a_rule_that_does_not_exist_is_refused_in_the_site_file() -> None:
    with pytest.raises(
        UserError, match=r"^config/site.yaml: rules.smaple_shard: no such rule; did you mean 'sample_shard'"
    ):
        check_rules(Site.model_validate({"rules": {"smaple_shard": {"minutes": 5}}}))


def test_imagenet_is_not_trained_on_what_nobody_asked_for() -> None:
    study = load_study(ROOT / "config" / "imagenet256.yaml")
    with pytest.raises(UserError, match=r"^config/site.yaml: training: missing"):
        check_training(Site(), study)
    check_training(Site.model_validate({"training": {"gpus": 8}}), study)
    check_training(Site(), load_study(ROOT / "config" / "smoke.yaml"))


def test_a_training_job_and_its_rule_ask_for_the_same_memory() -> None:
    site = Site.model_validate({"training": {"mem_gb": 10}})
    assert Slurm(site).parameters()["mem"] == f"{training_resources(site)['mem_mb']}MB"


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


def test_a_run_whose_turn_has_not_come_is_not_said_to_run(data: Path, tmp_path: Path) -> None:
    """Both have the job, which is this very process; it has begun with the first."""
    tasks = [slow_task(data, tmp_path / "runs", name, 0.0, 20) for name in ("a", "b")]
    job = f"{os.getpid()}.{Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19]}"
    for task in tasks:
        task.write_record(name="sv-a", job=job, launcher="submitit-local")
    write_json(tasks[0].files.state, {"hash": tasks[0].hash, "name": "sv-a", "starts": 1, "state": "running"})
    lines = table({task.run.name: task.run for task in tasks}, Layout(str(tmp_path))).splitlines()
    assert [re.split("  +", line)[1] for line in lines[1:]] == ["RUNNING", "waits its turn"]


def test_on_a_terminal_the_line_of_progress_is_written_over(
    task: SlowTask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    submitter(task, Queue(["PENDING (Priority)", "PENDING (Resources)", finishing(task)])).wait()
    said = capsys.readouterr().err
    assert "\r\033[Ktrain a: job 1 PENDING (Priority)" in said
    assert "\r\033[Ktrain a: job 1 PENDING (Resources)" in said


@pytest.mark.workflow
def test_the_jobs_of_the_imagenet_study_are_listed_with_what_they_ask_for(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "workflow" / "Snakefile"]
    (tmp_path / "config").mkdir()
    for name in ("workflow", "slurm", "config/imagenet256.yaml", "config/published"):
        (tmp_path / name).symlink_to(ROOT / name)
    arguments = ["-n", "all", "--profile", "slurm", "--configfile", "config/imagenet256.yaml"]
    site = "training: {nodes: 2, gpus: 4, mem_gb: 100, minutes: 600}\nrules: {sample_shard: {minutes: 90}}\n"
    (tmp_path / "config" / "site.yaml").write_text(site)
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = done.stdout + done.stderr
    assert re.search(r"^total +\d{4}$", listed, re.M)
    asked = dict(re.findall(r"^ *rule (\w+).*?^ *resources: ([^\n]*)$", listed, re.M | re.S))
    runs = load_study(ROOT / "config" / "imagenet256.yaml").runs()
    assert sum(rule.startswith("train_") for rule in re.findall(r"^rule (\S+):", listed, re.M)) == len(runs)
    for name, wanted in {
        "train_repa": ["runtime=600", "training_nodes=2", "training_gpus=4", "mem_mb=102400"],
        "sample_shard": ["runtime=90", "gpu=1", "cpus_per_task=8", "mem_mb=32768"],
        "fidelity": ["runtime=120", "gpu=1", "mem_mb=65536"],
    }.items():
        assert [word for word in wanted if word not in asked[name].split(", ")] == []
    # Small jobs go to SLURM together: shards by the two dozen, samples of the smallest model more at a time.
    packs = [re.findall(r"shard=(\d+)", pack) for pack in re.split(r"^.*Group job ", listed, flags=re.M)[1:]]
    assert len(packs) < sum(map(len, packs)) / 2
    found = re.findall(r"Group job (\S+) ", listed)
    assert found.count("latents") == math.ceil(256 / 24)
    assert found.count("samples-repa-b-s0") < found.count("samples-repa-high-s0")


def test_jobs_of_a_pack_ask_for_the_same_machine_and_together_for_a_day_at_most() -> None:
    """Even where the site file asks for something else for one of them."""
    site = Site.model_validate(
        {"rules": {"fidelity": {"mem_gb": 100, "minutes": 700}, "image_shard": {"minutes": 2000}}}
    )
    for name in ("imagenet256", "smoke"):
        study = load_study(ROOT / "config" / f"{name}.yaml")
        for rule in PACKS:
            needs = {mate: need(mate, study, site) for mate in PACKS if PACKS[mate] == PACKS[rule]}
            assert len({wanted[1:] for wanted in needs.values()}) == 1
            units, minutes = units_per_job(rule, study, site, study.training), pack_minutes(rule, study, site)
            assert units == 1 if minutes > 24 * 60 else units * minutes <= 24 * 60
            assert minutes == sum(wanted.minutes for wanted in needs.values())
        assert need("sample_manifest", study, site).mem_gb == 100


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
