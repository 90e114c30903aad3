"""Command lines: unknown words, numbers out of range, names that the study does not have."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from bad_inputs.case import Case, command
from bad_inputs.study_keys import CONFIG

S = str(CONFIG / "smoke.yaml")
T = str(CONFIG / "pretrained-tiny.yaml")
OUT = "--output made/x"
#: (the words after `stablevelocity`, what the line names)
LINES: list[tuple[str, str]] = [
    ("nosuch", r"No such command 'nosuch'"),
    ("--nosuch", r"No such option: --nosuch"),
    ("check", r"Missing argument 'study'"),
    (f"check {S} {S}", r"unexpected extra argument"),
    (f"check {S} --site", r"--site' requires an argument"),
    (f"chek {S}", r"No such command 'chek'"),
    (f"plan {S} --gpus 0", r"--gpus'"),
    (f"plan {S} --gpus many", r"--gpus'"),
    (f"plan {S} --gpus 1.5", r"--gpus'"),
    (f"plan {S} --gpus 4 --gpus-per-run 8", r"8 devices for a run, but only 4 in all"),
    (f"plan {S} --gpus-per-run -1", r"--gpus-per-run'"),
    (f"plan {S} --gpus {'9' * 400}", r"--gpus'"),
    (f"check {S} {'x' * 5000}", r"unexpected extra argument"),
    (f"check {S} \u202eabc", r"unexpected extra argument\(s\) \(\\u202eabc\)"),
    (f"check {S} \udcff", r"unexpected extra argument\(s\) \(\\udcff\)"),
    ("x" * 5000, r"No such command"),
    ("check " + "x" * 3000, r"xxx: cannot be read"),
    ("schema --output .", r"is a folder, expected a file"),
    ("archive x --output .", r"is a folder, expected a file"),
    (f"plan {S} --peak nan", r"peak nan"),
    (f"plan {S} --peak 0", r"peak 0"),
    (f"plan {S} --peak inf", r"peak inf"),
    (f"plan {S} --utilisation 2", r"utilisation 2"),
    (f"plan {S} --utilisation -1", r"utilisation -1"),
    (f"plan {S} --measured x", r"--measured x: expected MODEL="),
    (f"plan {S} --measured x=fast", r"--measured x=fast"),
    (f"plan {S} --measured x=-5", r"--measured x=-5"),
    (f"plan {S} --measured x=nan", r"--measured x=nan"),
    (f"plan {S} --measured x={S}", r"--measured x="),
    ("plan no.yaml", r"no\.yaml: cannot be read"),
    (f"plan {T}", r"plan: the study has no arms"),
    (f"image-index --study {S} --split test {OUT}", r"--split"),
    (f"image-index --study no.yaml --split train {OUT}", r"no\.yaml: cannot be read"),
    (f"image-shard --study {S} --index no.csv --shard 0 --of 2 {OUT}", r"no\.csv"),
    (f"image-shard --study {S} --index no.csv --shard -1 --of 2 {OUT}", r"--shard'"),
    (f"image-shard --study {S} --index no.csv --shard 2 --of 2 {OUT}", r"--shard 2 --of 2: expected 0 to 1"),
    (f"image-shard --study {S} --index no.csv --shard 0 --of 0 {OUT}", r"--of'"),
    (f"gmm-variance --study {S} --dimension 0 --curve made/c --split-point made/s", r"--dimension'"),
    (f"gmm-variance --study {S} --dimension x --curve made/c --split-point made/s", r"--dimension'"),
    (f"data-variance --study {S} --source words --manifest x --curve made/c --split-point made/s", r"--source"),
    (f"sample --study {S} --sampler no --weights w --autoencoder a {OUT}", r"--sampler no: no such sampler"),
    (f"sample --study {S} --sampler ode --weights w --autoencoder a --shard -1 {OUT}", r"--shard'"),
    (f"sample --study {S} --sampler ode --weights no.safetensors --autoencoder a {OUT}", r"no\.safetensors"),
    (f"sample --study {S} --sampler ode --weights w --autoencoder a --processes 0 {OUT}", r"--processes'"),
    (f"evaluate --study {S} --run no --step 1 --sampler ode --samples s --reference r {OUT}", r"--run no: no such run"),
    (
        f"sweep --study {S} --run no --weights w --autoencoder a --reference r --images-output made/y {OUT}",
        r"--run no: no such run",
    ),
    (f"train --study {S} --run no --latents l --folder made", r"--run no: no such run"),
    (f"train --study {S} --run cfm-s0 --latents l --folder made --launcher bash", r"launcher"),
    ("train --launcher", r"--launcher' requires an argument"),
    (f"score . . --weights w --extractor vgg {OUT}", r"--extractor'"),
    (f"score . . --weights w --bootstrap 0 {OUT}", r"--bootstrap'"),
    (f"score no . --weights w {OUT}", r"no: no such file or folder"),
    (f"prompts --study {T} --family no {OUT}", r"--family'"),
    (f"prompts --study {S} --family sd35 {OUT}", r"pretrained"),
    (f"tiny-model --study {T} --family no {OUT}", r"--family'"),
    (f"table --study {S} --results . --name no {OUT}", r"table 'no'"),
    (f"figure --study {S} --results . --name no {OUT}", r"figure 'no'"),
    (f"scheduler-errors --study {S} {OUT}", r"pretrained"),
    (f"generate --family no --prompts p --arm euler-long {OUT}", r"family 'no'; expected one of sd35"),
    (f"tune . --prompts no.txt {OUT}", r"no\.txt: cannot be read"),
    (f"tune . {OUT}", r"--prompts FILE or one --prompt TEXT"),
    (f"tune . --prompt x --calls 5 --loss-db 40 {OUT}", r"--calls 5 and --loss-db 40"),
    (f"tune . --prompt x --calls 0 {OUT}", r"--calls'"),
    (f"tune . --prompt x --steps 1 {OUT}", r"--steps'"),
    (f"tune . --prompt x --seed -1 {OUT}", r"--seed'"),
    (f"tune . --prompt x --offload disk {OUT}", r"--offload'"),
    (f"tune . --prompt x --height 0 {OUT}", r"--height'"),
    (f"compare-pipeline . --prompt x --guidance -1 {OUT}", r"--guidance'"),
    ("download no-such-thing --output made/x", r"download: 'no-such-thing' given"),
    ("download a/b --output made/x", r"a/b has no known revision"),
    ("download cifar10", r"cifar10 needs --output"),
    ("download mae-base --output made/x", r"mae-base has no known revision"),
    ("download a/b/c", r"download: 'a/b/c' given"),
    ("convert no.pt made/x", r"no\.pt: no such file|kind|Missing"),
    ("schema --output /proc/no/x", r"/proc/no"),
]


def words(line: str) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        with contextlib.chdir(folder):
            command(*line.split())

    return attempt


CASES = [Case(line.replace(str(CONFIG), "config"), words(line), expected) for line, expected in LINES]
