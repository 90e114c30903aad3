"""What TensorBoard shows is what metrics.csv says."""

from pathlib import Path

import pytest

from stablevelocity.cli.tensorboard import write_events
from stablevelocity.errors import UserError

pytest.importorskip("tensorboard")


def test_every_value_of_finished_and_growing_runs_arrives_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results = tmp_path / "results"
    whole = results / "runs" / "cfm-s0" / "metrics.csv"
    growing = results / "runs" / "repa-s0" / "checkpoints" / "abc" / "metrics.csv"
    for path, rows in ((whole, 3), (growing, 2)):
        path.parent.mkdir(parents=True)
        lines = [f"{10 * k},{1 / k:.6g},{k}" for k in range(1, rows + 1)]
        path.write_text("\n".join(["step,loss,grad_norm", *lines]) + "\n")
    for _ in range(2):  # a second export replaces the first
        assert write_events(results, tmp_path / "events") == ["cfm-s0", "repa-s0"]
    for run, rows in (("cfm-s0", 3), ("repa-s0", 2)):
        events = EventAccumulator(str(tmp_path / "events" / run)).Reload()
        assert sorted(events.Tags()["scalars"]) == ["grad_norm", "loss"]
        found = [(event.step, event.value) for event in events.Scalars("loss")]
        assert found == [(10 * k, pytest.approx(1 / k, rel=1e-5)) for k in range(1, rows + 1)]


def test_an_export_into_the_runs_themselves_removes_nothing_of_them(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "cfm-s0"
    (run / "weights").mkdir(parents=True)
    (run / "metrics.csv").write_text("step,loss\n1,0.5\n")
    (run / "weights" / "step-1.safetensors").touch()
    write_events(tmp_path, tmp_path / "runs")
    assert (run / "metrics.csv").exists()
    assert (run / "weights" / "step-1.safetensors").exists()


def test_no_runs_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metrics\.csv"):
        write_events(tmp_path, tmp_path / "events")
