"""What a verb does with the files it writes, before it writes them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stablevelocity.cli.main import app

KILLED = """
import os, signal, sys
from stablevelocity.files import atomic_write

with atomic_write(sys.argv[1]) as temporary:
    temporary.write_bytes(b"x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""

STUDY = str(Path(__file__).parents[2] / "config/smoke.yaml")
JOBS = {
    "latent-shard": ["--images", "none", "--autoencoder", "none"],
    "feature-shard": ["--images", "none", "--encoder", "none"],
    "image-shard": ["--study", STUDY, "--index", "none", "--shard", "0", "--of", "1"],
    "sample": ["--study", STUDY, "--sampler", "ode", "--weights", "none", "--autoencoder", "none"],
    "reference": ["--study", STUDY, "--train", "none"],
}


@pytest.mark.parametrize("verb", JOBS)
def test_a_job_removes_at_its_start_what_a_killed_one_left_of_its_output(tmp_path, verb):
    """Hours before it writes: the disk may be full of it. Here the job fails early, for want of its inputs."""
    output = tmp_path / "shard-00000.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, output], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    result = CliRunner().invoke(app, [verb, *JOBS[verb], "--output", str(output)])
    assert result.exit_code != 0
    assert list(tmp_path.iterdir()) == []
