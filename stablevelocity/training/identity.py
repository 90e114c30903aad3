"""Which run this is: a hash of all that its weights depend on. Light, for processes that only watch a run."""

import hashlib
import json
from pathlib import Path

from stablevelocity.study import Run


def run_hash(run: Run, latents: Path, features: Path | None, code: str) -> str:
    """Hash of the resolved run, the manifests of its data and the code.

    How often to log or save is not part of it.
    """
    settings = run.model_dump(mode="json", exclude={"training": {"checkpoint_every", "log_every"}})
    data = [path.read_text() for path in (latents, features) if path is not None]
    text = json.dumps([settings, data, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
