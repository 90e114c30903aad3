"""Site files: what differs between clusters."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import yaml

from bad_inputs.case import Case, command
from bad_inputs.study_keys import CONFIG, SMOKE, put

#: (the file, what the line names besides it)
FILES: list[tuple[str | bytes, str]] = [
    ("launcher: bash", r"launcher: "),
    ("launcher: true", r"launcher: "),
    ("lancher: slurm", r"lancher: no such key; did you mean 'launcher'"),
    ("gpus: 8", r"gpus: no such key; did you mean 'training\.gpus'"),
    ("account: '`touch made`'", r"account: String should match"),
    ("account: --help", r"account: String should match"),
    ("account: ''", r"account: String should"),
    ("account: 5", r"account: Input should be a valid string"),
    ("qos: 'a b'", r"qos: String should match"),
    ('qos: "a\\n#SBATCH --x"', r"qos: String should match"),
    ("partitions: gpu", r"partitions: "),
    ("partitions: {gpus: x}", r"partitions\.gpus: no such key; did you mean 'gpu'"),
    ("partitions: {gpu: 'a;b'}", r"partitions\.gpu: String should match"),
    ("gres: 'gpu:{nope}'", r"gres: String should match"),
    ("gres: 'gpu:{}'", r"gres: String should match"),
    ("gres: 'gpu:{gpus!r}'", r"gres: String should match"),
    ("gres: 'gpu:{gpus:99999}'", r"gres: String should match"),
    ("gres: 'gpu:{0}'", r"gres: String should match"),
    ("gres: 'gpu:{{gpus}}'", r"gres: String should match"),
    ("gres: 'gpu:$(id)'", r"gres: String should match"),
    ("constraint: 'a b'", r"constraint: String should match"),
    ("constraint: '`id`'", r"constraint: String should match"),
    ("setup: module load cuda", r"setup: Input should be a valid list"),
    ("setup: [5]", r"setup\.0: Input should be a valid string"),
    ('setup: ["a\\nb"]', r"setup\.0: String should match"),
    ('setup: ["a\\0b"]', r"setup\.0: String should match"),
    ("setup: ['']", r"setup\.0: String should have at least 1"),
    ("poll_seconds: 0", r"poll_seconds: .*greater than 0"),
    ("poll_seconds: .inf", r"poll_seconds: "),
    ("poll_seconds: .nan", r"poll_seconds: "),
    ("poll_seconds: true", r"poll_seconds: Input should be a number"),
    ("training: 5", r"training: "),
    ("training: {nodes: 0}", r"training\.nodes: .*greater than 0"),
    ("training: {nodes: 1000000}", r"training\.nodes: .*less than or equal"),
    ("training: {gpus: -1}", r"training\.gpus: .*greater than or equal to 0"),
    ("training: {gpus: 8.5}", r"training\.gpus: "),
    ("training: {gpus: true}", r"training\.gpus: Input should be a number"),
    ("training: {gpus: 5}", r"training: 5 processes, but the batch of arm cfm \(32\)"),
    ("training: {nodes: 3, processes: 2}", r"training: 6 processes, but the batch of arm cfm \(32\)"),
    ("training: {processes: no}", r"training\.processes: Input should be a number"),
    ("training: {cpus: 0}", r"training\.cpus: .*greater than 0"),
    ("training: {mem_gb: 0}", r"training\.mem_gb: .*greater than or equal to 0\.01"),
    ("training: {mem_gb: 0.0001}", r"training\.mem_gb: .*greater than or equal to 0\.01"),
    ("training: {mem_gb: .inf}", r"training\.mem_gb: "),
    ("training: {mem_gb: 16GB}", r"training\.mem_gb: "),
    ("training: {minutes: '24:00:00'}", r"training\.minutes: "),
    ("training: {minutes: 24:00:00}", r"line 1: cannot be read, given '24:00:00'"),
    ("training: {minutes: 1000000}", r"training\.minutes: .*less than or equal to 525600"),
    ("training: {minutes: 1}", r"training\.stop_seconds: 90, but a job has 60 s in all"),
    ("training: {stop_seconds: 100000}", r"training\.stop_seconds: 100000, but a job has 86400 s"),
    ("training: {max_requeues: -3}", r"training\.max_requeues: .*greater than 0"),
    ("training: {runs_per_job: 0}", r"training\.runs_per_job: .*greater than 0"),
    ("training: {walltime: 3}", r"training\.walltime: no such key"),
    ("rules: [toy]", r"rules: "),
    ("rules: {sample: {minutes: 5}}", r"rules\.sample: no such rule; did you mean 'sample_shard'"),
    ("rules: {nosuch: {minutes: 5}}", r"rules\.nosuch: no such rule"),
    ("training: {nodes: 010}", r"line 1: cannot be read, given '010'"),
    ("rules: {toy: 5}", r"rules\.toy: "),
    ("rules: {toy: {mins: 5}}", r"rules\.toy\.mins: no such key"),
    ("rules: {toy: {minutes: -5}}", r"rules\.toy\.minutes: .*greater than 0"),
    ("rules: {toy: {mem_gb: 0}}", r"rules\.toy\.mem_gb: "),
    ("rules: {toy: {gpus: -1}}", r"rules\.toy\.gpus: "),
    ("account: a\naccount: b\n", r"line 2: the key 'account' stands twice"),
    ("training:\n  gpus: 1\n  gpus: 2\n", r"line 3: the key 'gpus' stands twice"),
    ("? [a]\n: b\n", r"line 1: a key should be text"),
    ("training: {gpus: " + "9" * 5000 + "}", r"line 1: cannot be read"),
    ("a" * 1000 + ": 1", r"no such key"),
    ("[a]", r"expected a mapping of keys, given list"),
    ("word", r"expected a mapping of keys, given str"),
    ("a: [", r"line 1 is not YAML|is not YAML"),
    ("a: !!python/object/apply:os.system [touch made]", r"is not YAML"),
    ("[" * 100_000, r"is nested too deeply"),
    ("account: für".encode("latin-1"), r"is not text in UTF-8"),
    ("account: a".encode("utf-16"), r"is not text in UTF-8"),
]


def site(content: str | bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "site.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        command("check", CONFIG / "smoke.yaml", "--site", folder / "site.yaml")

    return attempt


def link(folder: Path) -> None:
    (folder / "site.yaml").symlink_to(folder / "gone")
    command("check", CONFIG / "smoke.yaml", "--site", folder / "site.yaml")


CASES = [Case(f"{number}: {str(content)[:30]}", site(content), line) for number, (content, line) in enumerate(FILES)]


def half_precision_here(folder: Path) -> None:
    study = put(SMOKE, ("arms", "cfm", "training", "precision"), "fp16")
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    (folder / "site.yaml").write_text("launcher: local")
    with patch("torch.cuda.is_available", lambda: False):
        command("check", folder / "study.yaml", "--site", folder / "site.yaml")


CASES += [
    Case(
        "fp16 on this machine's CPU", half_precision_here, r"training\.precision: fp16 of arm cfm needs an accelerator"
    ),
    Case("a folder", lambda folder: command("check", CONFIG / "smoke.yaml", "--site", folder), "cannot be read"),
    Case("a link to nothing", link, "cannot be read"),
]
