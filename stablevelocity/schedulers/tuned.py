"""What `stablevelocity tune` chose, as options of a scheduler: `from_config(config, xi="auto")`.

A tuning file says for which base scheduler config it holds; the cache keeps the last one of each pipeline, guidance and
size, by config.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, write_json

#: Config entries of the schedulers here, and those that diffusers adds; the rest is the base schedule.
_OWN = ("xi", "low_steps", "noise_factor", "enabled", "grid", "calls")


def base_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a scheduler's config that decides its base schedule, as JSON would give it back."""
    kept = {key: value for key, value in config.items() if key not in _OWN and not key.startswith("_")}
    return json.loads(json.dumps(kept, default=str))


def cache_folder(config: Mapping[str, Any]) -> Path:
    """Where the tunings for this base schedule lie; XDG_CACHE_HOME is honoured."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # in a container, of a user that no file names
        raise OSError(errno.ENOTDIR, "this user has no home folder; set XDG_CACHE_HOME", "~") from None
    text = json.dumps(base_config(config), sort_keys=True)
    return root / "stablevelocity" / "tuning" / hashlib.sha256(text.encode()).hexdigest()[:16]


def remember(tuning: Mapping[str, Any]) -> None:
    """Put a tuning where `xi="auto"` finds it, in the place of the last one of this pipeline, guidance and size."""
    name = hashlib.sha256(json.dumps([str(tuning["pipeline"]), tuning["arguments"]]).encode()).hexdigest()[:16]
    write_json(cache_folder(tuning["base_config"]) / f"{name}.json", tuning)


def tuned_options(scheduler: str, config: Mapping[str, Any], file: Path | str | None) -> dict[str, Any]:
    """The options that a tuning file, or the one cached file for this config, chose for the class `scheduler`.

    Raises UserError, one line, where there is none or more than one, where it is of another base schedule or class, and
    where the base scheduler itself came out best.
    """
    how = "make one with: stablevelocity tune PIPELINE --prompts FILE --output DIR"
    if file is None:
        cached = sorted(cache_folder(config).glob("*.json"))
        if len(cached) != 1:
            count = f"{len(cached) or 'no'} tunings of this scheduler config are cached"
            raise UserError(f"{scheduler}: xi='auto', but {count}; pass tuning=FILE, or {how}")
        file = cached[0]
    if not Path(file).is_file():
        problem = "is a folder, expected its tuning.json" if Path(file).is_dir() else f"no such file; {how}"
        raise UserError(f"{scheduler}: tuning={str(file)!r}: {problem}")
    tuning = read_json(file, "base_config", "options", "calls", "scheduler", "class")
    made_for = tuning["base_config"]
    if not isinstance(made_for, dict):
        raise UserError(f"{scheduler}: {file}: is no tuning; {how}")
    differing = sorted(key for key, value in made_for.items() if base_config(config).get(key, value) != value)
    if differing:
        raise UserError(f"{scheduler}: {file} was made for another base schedule ({differing[0]} differs); {how}")
    if tuning["options"] is None:
        asked = f"num_inference_steps={tuning['calls']}"
        raise UserError(f"{scheduler}: {file}: keep the base scheduler ({tuning['scheduler']}, {asked}), it was best")
    if tuning["class"] != scheduler:
        raise UserError(f"{scheduler}: {file} was made for {tuning['class']}; {how}")
    return tuning["options"]
