"""Which run this is: a hash of all that its weights depend on. Light, for processes that only watch a run."""

import hashlib
import json
from pathlib import Path

from stablevelocity.files import read_json, write_json
from stablevelocity.provenance import code_hash
from stablevelocity.study import Run
from stablevelocity.study.layout import RunFiles


def trainers_code() -> str:
    return code_hash("stablevelocity.training.trainer")


def begun_code(run: Run, latents: Path, features: Path | None, folder: Path, remake: bool = False) -> str:
    """The code that the run was begun with, today's if it is begun now: a run that other code began goes on.

    Noted beside the checkpoints. With `remake` today's code begins the run anew.
    """
    file, today = RunFiles(folder).begun, trainers_code()
    begun = read_json(file) if file.exists() else {}
    state = run_hash(run, latents, features, "")
    if begun.get(state) != today and (remake or state not in begun):
        write_json(file, begun | {state: today})
        return today
    return begun[state]


def settings_of(run: Run) -> str:
    """What a run's weights depend on, as text: all but how often to log or save."""
    plain = run.model_dump(mode="json", exclude={"training": {"checkpoint_every", "log_every"}})
    return json.dumps([plain], sort_keys=True)


def run_hash(run: Run, latents: Path, features: Path | None, code: str) -> str:
    """Hash of the resolved run, the manifests of its data and the code it was begun with."""
    data = [path.read_text() for path in (latents, features) if path is not None]
    text = json.dumps([settings_of(run), data, code])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
