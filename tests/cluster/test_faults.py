"""Whatever happens to a training job on SLURM, its weights are those of a run that nothing disturbed.

Every fault has a cluster of its own (they start in a second), and all of them happen at the same time: the trainings
wait more than they compute.
"""

import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from box import Box
from safetensors.torch import load_file

pytestmark = pytest.mark.slurm

PATIENCE = 900  # seconds; a limit for a test that hangs, not a promise
STEPS, LONG = 150, 480
AT_ONCE = 8  # scenarios; they wait more than they compute


class Scene:
    """One run on one cluster: its folders, its submitter, and what can be known of it."""

    def __init__(self, box: Box, folder: Path, data: Path, launcher: str = "slurm", **training: float):
        self.box, self.folder, self.data, self.launcher = box, folder, data, launcher
        settings = {"minutes": 10, "stop_seconds": 30, "mem_gb": 1, **training}
        self.site = folder / "site.yaml"
        self.site.write_text(
            'poll_seconds: 1\nsetup: ["export GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1"]\n'
            f"training: {{{', '.join(f'{name}: {value}' for name, value in settings.items())}}}\n"
        )

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "a"

    def submitter(
        self, name: str = "submitter", seconds: float = 0.2, steps: int = STEPS, task: str = "SlowTask"
    ) -> subprocess.Popen[bytes]:
        """Start a submitter for the run; `said(name)` is its log."""
        script = Path(__file__).with_name("slow_training.py")
        line = f"exec {sys.executable} {script} {self.data} {self.folder / 'runs'} a {self.launcher} {self.site}"
        return self.box.start(f"{line} {seconds} {steps} {task}", self.folder / f"{name}.log")

    def said(self, name: str = "submitter") -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never {what}: {self.said()}"
            time.sleep(0.2)

    def trains(self, step: int = 20) -> str:
        """Wait until a checkpoint of `step` or later is there; the id of the running job."""
        self.wait_for(lambda: self.last_step() >= step, f"at step {step}")
        return self.box.says("squeue --noheader --states=R --format=%A").split()[0]

    def fills_up(self, disk: Path) -> None:
        """Leave no room on a disk of the box, which only the box can see, once the run has a checkpoint of step 20."""
        later = f"ls {disk} -R | grep -E 'step-00000([1-9]|0[2-9])'"
        self.wait_for(lambda: self.box.run(later).returncode == 0, "at step 20")
        # Twice: an old checkpoint may be removed in between.
        self.box.run(f"cat /dev/zero > {disk}/filler; sleep 1; cat /dev/zero >> {disk}/filler")

    def last_step(self) -> int:
        return max((int(file.stem[-8:]) for file in self.run.glob("checkpoints/*/step-*")), default=0)

    def overview(self) -> str:
        """What `stablevelocity jobs` says of it."""
        script = (
            "from pathlib import Path; from slow_training import slow_task;"
            "from stablevelocity.cluster.overview import table; from stablevelocity.study.layout import Layout;"
            f"task = slow_task(Path('.'), Path('.'), 'a', 0, {STEPS});"
            f"print(table({{'a': task.run}}, Layout('{self.folder}')))"
        )
        return self.box.says(f'{sys.executable} -c "{script}"')

    def weights(self, steps: int = STEPS) -> dict[str, torch.Tensor]:
        return load_file(self.run / "weights" / f"step-{steps:08d}.safetensors")

    def ends_well(self, submitter: subprocess.Popen[bytes], name: str = "submitter") -> None:
        assert submitter.wait(PATIENCE) == 0, self.said(name)


def time_limit(scene: Scene) -> None:
    scene.ends_well(scene.submitter(seconds=0.4, steps=LONG))
    assert len(scene.box.jobs()) == 1
    assert int(scene.box.says(f"scontrol show job {scene.box.jobs()[0]} | grep -o 'Restarts=[0-9]*'")[9:]) >= 2


def requeue(scene: Scene) -> None:
    submitter = scene.submitter(seconds=1)  # time to look at it
    scene.box.says(f"scontrol requeue {scene.trains()}")
    told: list[str] = []

    def goes_on() -> bool:
        told[:] = re.split("  +", scene.overview().splitlines()[1])
        return told[:3] == ["a", "RUNNING", "1"] and told[6] == "1" and int(told[3]) > 20

    scene.wait_for(goes_on, "again at work in the overview")
    assert told[4] == str(STEPS)
    assert re.fullmatch(r"\d+ min ago", told[5])
    assert re.fullmatch(r"\d+:\d\d", told[7])
    scene.ends_well(submitter)
    assert re.search(rf"job 1 RUNNING, step \d+/{STEPS}, loss \d\S*, \d\S* images/s, ETA \d+:\d\d$", scene.said(), re.M)
    assert re.search(r"job 1 PENDING \(\w+\)$", scene.said(), re.M)
    assert len(scene.box.jobs()) == 1


def signalled(scene: Scene) -> None:
    submitter = scene.submitter()
    scene.box.says(f"scancel --signal=USR2 {scene.trains()}")
    scene.ends_well(submitter)
    assert len(scene.box.jobs()) == 1


def pair_signalled(scene: Scene) -> None:
    signalled(scene)


def terminated(scene: Scene) -> None:
    """Saved and gone, as the scheduler takes it away; the submitter brings another."""
    submitter = scene.submitter()
    scene.box.says(f"scancel --signal=TERM {scene.trains()}")
    scene.ends_well(submitter)
    assert len(scene.box.jobs()) == 2


def requeues_used_up(scene: Scene) -> None:
    submitter = scene.submitter(seconds=0.4)
    scene.box.says(f"scancel --signal=USR2 {scene.trains()}")
    scene.wait_for(lambda: "Restarts=1" in scene.box.says("scontrol show job 1"), "queued again")
    at = scene.last_step()
    scene.wait_for(lambda: scene.last_step() > at, "at the next checkpoint")
    scene.box.says("scancel --signal=USR2 1")
    assert submitter.wait(PATIENCE) == 1, scene.said()
    last = scene.said().splitlines()[-1]
    message = "error: a: the job reached its time limit more often than training.max_requeues of the site file allows"
    assert last.startswith(message)
    assert scene.box.jobs() == ["1"]
    scene.ends_well(scene.submitter("second"), "second")


def killed(scene: Scene) -> None:
    submitter = scene.submitter()
    scene.trains()
    [process] = scene.box.processes()
    scene.box.says(f"kill -9 {process}")
    scene.ends_well(submitter)
    assert "another goes on from step" in scene.said()


def node_lost(scene: Scene) -> None:
    submitter = scene.submitter(seconds=1)  # SLURM needs some seconds to see it
    job = scene.trains()
    node = scene.box.says(f"scontrol show hostnames $(squeue --noheader --jobs={job} --format=%N) | tail -1")
    scene.box.says(f"kill -9 $(cat {scene.box.folder}/run/slurmd.{node}.pid)")
    scene.ends_well(submitter)
    assert scene.box.says(f"sinfo --noheader --Node --nodes={node} --format=%T").startswith("down")
    assert "Restarts=1" in scene.box.says(f"scontrol show job {job}")


def submitter_killed(scene: Scene) -> None:
    submitter = scene.submitter(seconds=1)  # time for the second
    scene.trains()
    scene.box.says("kill -9 $(pgrep --full '^[^ ]*python[^ ]* [^ ]*slow_training.py')")
    submitter.wait()
    scene.ends_well(scene.submitter("second"), "second")
    assert "train a: job 1 " in scene.said("second")
    assert scene.box.jobs() == ["1"]
    # Also when all is done and Snakemake has wiped what the rule declares.
    for file in (scene.run / "metrics.csv", *scene.run.glob("weights/*")):
        file.unlink(missing_ok=True)  # the job's own temporary file among them
    scene.ends_well(scene.submitter("third"), "third")
    assert scene.box.jobs() == ["1"]


def two_submitters(scene: Scene) -> None:
    submitters = [scene.submitter(name) for name in ("one", "two", "three")]
    for submitter, name in zip(submitters, ("one", "two", "three"), strict=True):
        scene.ends_well(submitter, name)
    assert scene.box.jobs() == ["1"]


def full_disk(scene: Scene) -> None:
    disk = scene.run / "checkpoints"
    scene.box.says(f"mkdir -p {disk} && mount -t tmpfs -o size=4M tmpfs {disk}")
    submitter = scene.submitter()
    scene.fills_up(disk)
    assert submitter.wait(PATIENCE) == 1
    last = scene.said().splitlines()[-1]
    assert last.startswith("error: a: ")
    assert "cannot be written" in last
    assert "No space left on device" in last
    scene.box.says(f"rm {disk}/filler")
    scene.ends_well(scene.submitter("second"), "second")
    first = int(scene.box.says(f"grep -h 'continues from step' {scene.run}/job/logs/*.err | grep -o '[0-9]*$'"))
    assert first >= 10


def full_run_folder(scene: Scene) -> None:
    """Not even the word that the disk is full can be written."""
    scene.box.says(f"mkdir -p {scene.run} && mount -t tmpfs -o size=4M tmpfs {scene.run}")
    submitter = scene.submitter()
    scene.fills_up(scene.run)
    assert submitter.wait(PATIENCE) == 1, scene.said()
    assert "Traceback" not in scene.said()
    last = scene.said().splitlines()[-1]
    assert last.startswith("error: ")
    assert "No space left on device" in last
    scene.box.says(f"rm {scene.run}/filler")
    scene.ends_well(scene.submitter("second"), "second")
    # Out of the box, where the test can see it. Lazily: the job may still hold its log open when its result is there.
    kept = scene.folder / "kept"
    scene.box.says(f"cp -r {scene.run}/weights {kept} && umount --lazy {scene.run} && cp -r {kept} {scene.run}/weights")


def scheduler_restarted(scene: Scene) -> None:
    submitter = scene.submitter(seconds=1)  # time to notice it
    scene.trains()
    run = scene.box.folder / "run"
    scene.box.says(f"kill -9 $(cat {run}/slurmctld.pid) $(cat {run}/munged.pid)")
    scene.wait_for(lambda: "no answer from the scheduler" in scene.said(), "noticed")
    scene.box.says(f"bash {scene.box.folder}/start_munged")
    scene.box.says("slurmctld")
    scene.ends_well(submitter)
    assert scene.box.jobs() == ["1"]


def undisturbed_pair(scene: Scene) -> None:
    scene.ends_well(scene.submitter(seconds=0))


def pair_not_finite(scene: Scene) -> None:
    """What the first of two processes has to say takes time, and SLURM kills it as soon as the other has ended."""
    submitter = scene.submitter(task="NonFiniteTask")
    assert submitter.wait(PATIENCE) == 1, scene.said()
    assert "error: a: the loss or its gradient is not finite at step 2; the state before it is in" in scene.said()
    assert len(list(scene.run.glob("checkpoints/*/non-finite-step-00000002.safetensors"))) == 1
    assert scene.box.jobs() == ["1"]


# scenario: (nodes of its cluster, what differs in training of its site file)
SCENARIOS: dict[Callable[[Scene], None], tuple[int, dict[str, float]]] = {
    time_limit: (1, {"minutes": 2}),
    node_lost: (3, {"nodes": 2}),
    scheduler_restarted: (1, {}),
    full_disk: (1, {}),
    submitter_killed: (1, {}),
    two_submitters: (1, {}),
    killed: (1, {}),
    requeue: (1, {}),
    full_run_folder: (1, {}),
    requeues_used_up: (1, {"minutes": 8, "max_requeues": 1}),
    terminated: (1, {}),
    signalled: (1, {}),
    pair_signalled: (1, {"processes": 2}),
    undisturbed_pair: (1, {"processes": 2}),
    pair_not_finite: (1, {"processes": 2}),
}


PAIRS = ("node_lost", "pair_signalled")  # of two processes
OTHERS = ("undisturbed_pair", "pair_not_finite")  # no weights to compare with


@pytest.fixture(scope="module")
def scenes(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Scene]]]:
    """The scenarios of the chosen tests, started together."""
    from tiny_training import write_data

    data = tmp_path_factory.mktemp("data")
    write_data(data)

    def play(scenario: Callable[[Scene], None]) -> Scene:
        nodes, training = SCENARIOS[scenario]
        folder = tmp_path_factory.mktemp(scenario.__name__)
        launcher = "submitit-local" if scenario is undisturbed_pair else "slurm"
        with Box(nodes, slurmd_timeout=10 if scenario is node_lost else 300) as box:
            scene = Scene(box, folder, data, launcher, **training)
            scenario(scene)
        return scene

    chosen = " ".join(item.name for item in request.session.items)
    names = {name for name in PAIRS if f"[{name}]" in chosen}
    names |= {"undisturbed_pair"} if names else set()
    names |= {"pair_not_finite"} if "first_says_why" in chosen else set()
    wanted = [scenario for scenario in SCENARIOS if scenario.__name__ in names or f"[{scenario.__name__}]" in chosen]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {scenario.__name__: pool.submit(play, scenario) for scenario in wanted}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, torch.Tensor]]:
    """Weights of the run trained in this process, whole."""
    from slow_training import slow_task
    from tiny_training import write_data

    folder = tmp_path_factory.mktemp("undisturbed")
    write_data(folder)

    @functools.cache
    def weights(steps: int) -> dict[str, torch.Tensor]:
        task = slow_task(folder, folder / str(steps), "a", 0.0, steps)
        task.train()
        return load_file(task.folder / "weights" / f"step-{steps:08d}.safetensors")

    return weights


@pytest.mark.parametrize("scenario", [s.__name__ for s in SCENARIOS if s.__name__ not in PAIRS + OTHERS])
def test_the_weights_are_those_of_an_undisturbed_run(scenario: str, scenes, undisturbed) -> None:
    scene = scenes[scenario].result(PATIENCE)
    steps = LONG if scenario == "time_limit" else STEPS
    expected, found = undisturbed(steps), scene.weights(steps)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("scenario", PAIRS)
def test_the_weights_of_two_processes_are_those_of_an_undisturbed_pair_here(scenario: str, scenes) -> None:
    expected = scenes["undisturbed_pair"].result(PATIENCE).weights()
    found = scenes[scenario].result(PATIENCE).weights()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_of_two_processes_the_first_says_why_a_run_ends_before_it_is_killed(scenes) -> None:
    scenes["pair_not_finite"].result(PATIENCE)
