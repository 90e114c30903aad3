"""A finished study survives new code, a lost .snakemake/ and copying; what does not agree is found and named."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from project import Workflow

from stablevelocity.cli.verify import differences
from stablevelocity.records import SEAL, UNSEALED, read_records

pytestmark = pytest.mark.workflow

TABLE = "results/smoke/tables/table2.csv"
ARM = ["--config", "arms={cfm: {training: {lr: 1e-3}}}"]


def edit(workflow: Workflow, file: str, old: str, new: str) -> None:
    path = workflow.folder / "stablevelocity" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def line_on_codes(workflow: Workflow, *arguments: str) -> list[str]:
    done = workflow.snakemake("-n", "all", *arguments, "--configfile", "config/smoke.yaml")
    return [line for line in (done.stdout + done.stderr).splitlines() if "made by other code" in line]


def test_after_a_changed_log_line_nothing_runs_again_and_one_line_says_so(finished):
    edit(finished, "training/trainer.py", "continues from step", "goes on from step")
    assert finished.planned() == set()
    lines = line_on_codes(finished)
    assert len(lines) == 1
    assert re.search(r"results/smoke: 2 results were made by other code \(2 by \w{12}\) and stay, 0 of them", lines[0])
    assert "stablevelocity revalidate results/smoke" in lines[0]
    # On demand, what the code made is made again: all of it, or a run.
    trained = {"train_cfm-s0", "train_stablevm-va-s0"}
    assert finished.planned("--config", "remake=code") & trained == trained
    assert finished.planned("--config", "remake=cfm-s0") & trained == {"train_cfm-s0"}


def test_revalidation_names_the_runs_that_a_changed_update_rule_alters_and_verifies_the_others(finished):
    # Only where there is an alignment loss: of one of the two runs.
    edit(
        finished,
        "training/trainer.py",
        "self.run.alignment.coefficient * aligned",
        "1.01 * self.run.alignment.coefficient * aligned",
    )
    done = finished.run("stablevelocity", "revalidate", "results/smoke", "--runs", "cfm-s0", "--runs", "stablevm-va-s0")
    assert done.returncode == 1, done.stderr
    verdicts = {
        line.split(":")[0].split("/")[3]: line.split(": ")[1]
        for line in done.stdout.splitlines()
        if line.startswith("results/smoke/runs")
    }
    assert verdicts == {"cfm-s0": "verified", "stablevm-va-s0": "DIFFERS"}
    assert "1 results differ: results/smoke/runs/stablevm-va-s0/metrics.csv" in done.stdout
    assert "2 by" in line_on_codes(finished)[0]
    assert ", 1 of them verified" in line_on_codes(finished)[0]
    assert finished.planned() == set()
    planned = finished.planned("--config", "remake=code")
    assert "train_stablevm-va-s0" in planned
    assert "train_cfm-s0" not in planned
    made = json.loads((finished.results / "runs/cfm-s0/metrics.csv.provenance.json").read_text())
    assert made["verified"][0]["code"] != made["code"]
    assert "steps 10 to 20 trained" in made["verified"][0]["by"]
    assert "state of step 20, equal bits" in made["verified"][0]["by"]
    # So says what leads from a number of a table, and the page.
    where = ["--study", "results/smoke/study.json", "--results", "results/smoke", "--output", "results/smoke/page.html"]
    assert finished.run("stablevelocity", "report", *where).returncode == 0
    page = (finished.results / "page.html").read_text()
    for row, run, verified in ("CFM", "cfm-s0", True), ("StableVM + VA-REPA", "stablevm-va-s0", False):
        code = json.loads((finished.results / f"runs/{run}/metrics.csv.provenance.json").read_text())["code"]
        told = finished.run("stablevelocity", "trace", TABLE, "--row", row, "--column", "fid").stdout
        assert (f", code {code}; verified: code" in told) is verified
        assert f", code {code}" in told
        assert page.count(f"code {code}, verified under") == 1  # both runs are by the same code


def test_without_checkpoints_a_run_is_verified_from_its_first_step(finished):
    for file in finished.results.glob("runs/*/checkpoints/*/step-*"):
        file.unlink()
    done = finished.run("stablevelocity", "revalidate", "results/smoke", "--runs", "cfm-s0", "--steps", "5")
    assert done.returncode == 0, done.stderr
    assert "runs/cfm-s0/metrics.csv: verified: steps 0 to 5 trained, 1 rows, equal bits" in done.stdout
    edit(
        finished,
        "training/trainer.py",
        "nn.utils.clip_grad_norm_(self.trained.values(), settings.clip)",
        "nn.utils.clip_grad_norm_(self.trained.values(), 0.01)",
    )
    done = finished.run("stablevelocity", "revalidate", "results/smoke", "--runs", "cfm-s0", "--steps", "5")
    assert done.returncode == 1


def test_a_moved_module_is_the_same_code(finished):
    package = finished.folder / "stablevelocity"
    (package / "mathematics").mkdir()
    (package / "mathematics" / "__init__.py").touch()
    (package / "reference_bank.py").rename(package / "mathematics" / "reference_bank.py")
    for file in package.rglob("*.py"):
        text = file.read_text()
        file.write_text(text.replace("stablevelocity.reference_bank", "stablevelocity.mathematics.reference_bank"))
    assert finished.planned() == set()
    assert line_on_codes(finished) == []


def test_without_snakemakes_memory_nothing_runs_again_but_what_differs(finished):
    shutil.rmtree(finished.folder / ".snakemake")
    assert finished.planned() == set()
    planned = finished.planned(*ARM)
    assert {name for name in planned if name.startswith("train_")} == {"train_cfm-s0"}
    assert not planned & {"autoencoder", "latent_shard", "encoder", "judge", "gmm_variance", "toy"}
    assert finished.planned() == set()  # a dry run leaves no trace


def test_a_copied_folder_of_results_is_finished_where_it_arrives(finished, tmp_path):
    """Copied as `cp -r` does it, so that no time is what it was, into another clone."""
    other = tmp_path / "clone"
    for name in ("stablevelocity", "workflow", "config"):
        shutil.copytree(finished.folder / name, other / name)
    shutil.copytree(finished.results, other / "results" / "smoke", copy_function=shutil.copyfile)
    for number, file in enumerate(sorted((other / "results").rglob("*"), reverse=True)):
        os.utime(file, (1e9 + number, 1e9 + number))
    clone = Workflow(other)
    assert clone.planned() == set()
    assert {name for name in clone.planned(*ARM) if name.startswith("train_")} == {"train_cfm-s0"}
    # Content counts, not that it was copied.
    shard = other / "results/smoke/data/latents/train-00000.safetensors"
    flip(shard, 5000)
    os.utime(shard)
    assert {"latent_manifest", "train_cfm-s0"} <= clone.planned()


def test_a_deleted_shard_is_made_again_and_the_rest_only_if_it_comes_out_otherwise(finished):
    shard = finished.results / "data/latents/train-00000.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    done = finished.snakemake("all", "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 jobs" in done.stdout + done.stderr
    assert shard.read_bytes() == content
    assert finished.planned() == set()

    edit(finished, "data/stages/latents.py", "encode_images(model, pixels)", "encode_images(model, pixels // 2)")
    shard.unlink()
    done = finished.snakemake("all", "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stderr
    assert f"came out other than before ({shard.relative_to(finished.folder)})" in done.stdout + done.stderr
    assert {"latent_manifest", "train_cfm-s0", "train_stablevm-va-s0"} <= finished.planned()


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def test_one_flipped_bit_in_any_kept_file_is_found_and_named(finished, monkeypatch):
    """Checksums and checkpoints; the tables that are made again are tested below, they would take too long here."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr("stablevelocity.cli.verify._of_derived", lambda *_: iter(()))
    results = Path("results/smoke")
    assert list(differences(results)) == []
    kept = [file for file in results.rglob("*") if file.is_file() and file.stat().st_size]
    kept = [file for file in kept if str(file.relative_to(results)) not in UNSEALED - {SEAL}]
    assert len(kept) > 200
    assert {file.suffix for file in kept} > {".safetensors", ".csv", ".json", ".html", ".png", ".pdf", ".log"}
    places = {file: number * 7919 % file.stat().st_size for number, file in enumerate(kept)}
    # Twenty or so at a time, but none together with the file that holds its checksum: that one alone would be told.
    seal, records = results / SEAL, [file for file in kept if file.suffix == ".json"]
    plain = [file for file in kept if file not in records]
    for group in ([seal], *(part[start::8] for part in (sorted({*records} - {seal}), plain) for start in range(8))):
        for file in group:
            flip(file, places[file])
        found = list(differences(results))
        for file in group:
            assert any(line.startswith(f"{file}: ") for line in found), file
            flip(file, places[file])
    kept[0].unlink()
    assert any(str(kept[0]) in line and "missing" in line for line in differences(results))


def test_a_changed_cell_of_any_table_is_found_by_its_metrics_alone(finished, monkeypatch):
    """Though someone had written the checksum anew."""
    monkeypatch.chdir(finished.folder)
    for name in ("_of_records", "_of_seal", "_of_checkpoints"):
        monkeypatch.setattr(f"stablevelocity.cli.verify.{name}", lambda *_: iter(()))
    results = Path("results/smoke")
    assert list(differences(results)) == []
    tables = sorted((results / "tables").glob("*.csv"))
    expected = []
    for file in tables:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        if len(table):
            table.iloc[-1, -1] = "7.25"
            table.to_csv(file, index=False)
            expected.append(f"{file}: row {len(table)}, {table.columns[-1]}: 7.25; the metrics give")
    claims = json.loads((results / "claims.json").read_text())
    (results / "claims.json").write_text(json.dumps(claims[1:]))
    found = list(differences(results))
    assert len(expected) > 10
    assert all(any(line.startswith(start) for line in found) for start in expected), found
    assert any("claims.json: the metrics give other claims" in line for line in found)


def test_the_verb_ends_with_1_where_something_differs(finished):
    assert finished.run("stablevelocity", "verify", "results/smoke").returncode == 0
    flip(finished.results / "metrics" / "floor.csv", 30)
    done = finished.run("stablevelocity", "verify", "results/smoke")
    assert done.returncode == 1
    assert "results/smoke/metrics/floor.csv: differs from its checksum" in done.stdout


def test_every_result_has_a_record_of_the_code_and_the_command_that_made_it(finished):
    records = read_records(finished.results)
    recorded = {path for record in records for path in record.outputs}
    kept = [
        *finished.results.rglob("*.safetensors"),
        *finished.results.rglob("*.csv"),
        *finished.results.rglob("*.pdf"),
    ]
    kept = [file for file in kept if "checkpoints" not in file.parts and "features" not in file.parts[-3:]]
    assert [file for file in kept if file not in recorded] == []
    for record in records:
        assert re.fullmatch(r"\w{12}", record.code)
        assert "stablevelocity" in record.facts["command"][0]
        assert record.facts["versions"]["torch"]
        # Else the next start would read them all, to see that they are what they were.
        assert all(path.stat().st_mtime_ns == state["mtime_ns"] for path, state in record.outputs.items())


def test_the_workflow_runs_from_elsewhere_with_a_read_only_clone_and_home(finished, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(finished.results, elsewhere / "results" / "smoke")
    (elsewhere / "results/smoke/tables/variance.csv").unlink()

    def files() -> set[Path]:
        return {file for file in finished.folder.rglob("*") if "__pycache__" not in file.parts}

    before = files()
    done = subprocess.run(
        [
            "snakemake",
            "-s",
            str(finished.folder / "workflow/Snakefile"),
            "--directory",
            str(elsewhere),
            "--configfile",
            str(finished.folder / "config/smoke.yaml"),
            "--",
            "results/smoke/tables/variance.csv",
        ],
        cwd=tmp_path,
        env={**finished.environment, "HOME": "/proc/none"},  # where nobody can make a folder
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "results/smoke/tables/variance.csv").exists()
    assert files() == before  # nothing was written into the clone
