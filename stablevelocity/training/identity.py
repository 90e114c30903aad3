"""Which run this is: a hash of all that its weights depend on. Light, for processes that only watch a run."""

import hashlib
import json
from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, write_json
from stablevelocity.provenance import code_hash
from stablevelocity.study import Run
from stablevelocity.study.changes import same_settings
from stablevelocity.study.layout import RunFiles


def trainers_code() -> str:
    return code_hash("stablevelocity.training.trainer")


def begun_run(run: Run, latents: Path, features: Path | None, folder: Path, remake: bool = False) -> str:
    """The hash under which a run of these settings and data was begun, by whatever code; a new one if it was not.

    Noted beside the checkpoints. With `remake` it counts as begun by today's code only.
    """
    file, today = RunFiles(folder).begun, trainers_code()
    entries = read_json(file) if file.exists() else []
    if not isinstance(entries, list):
        raise UserError(f"{file}: expected a list of the states in which the run was begun; moved away, it begins anew")
    data = hashlib.sha256(_data(latents, features).encode()).hexdigest()
    for entry in reversed(entries):
        same = entry["data"] == data and same_settings(entry["settings"], settings_of(run))
        if same and (entry["code"] == today or not remake):
            return entry["hash"]
    new = {"hash": run_hash(run, latents, features, today), "settings": settings_of(run), "data": data, "code": today}
    write_json(file, [*entries, new])
    return new["hash"]


def settings_of(run: Run) -> str:
    """What a run's weights depend on, as text: all but how often to log or save, and how sure a number is."""
    left_out = {"training": {"checkpoint_every", "log_every"}, "intervals": True}
    plain = run.model_dump(mode="json", exclude=left_out)
    return json.dumps([plain], sort_keys=True)


def run_hash(run: Run, latents: Path, features: Path | None, code: str = "") -> str:
    """Hash of the resolved run, the manifests of its data and the code."""
    text = json.dumps([settings_of(run), _data(latents, features), code])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _data(latents: Path, features: Path | None) -> str:
    return json.dumps([path.read_text() for path in (latents, features) if path is not None])
