"""A folder of pictures: those that come or go after the study was made are noticed."""

import numpy as np
import pytest
import yaml
from PIL import Image
from project import ROOT, Workflow, copy_project

pytestmark = pytest.mark.workflow


def test_a_picture_that_comes_or_goes_makes_the_index_of_its_split_again(tmp_path, server):
    copy_project(tmp_path)
    project = Workflow(tmp_path)
    for number in range(24):
        folder = tmp_path / "pictures" / ("val" if number % 2 else "train") / ("cat", "dog")[number // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 9 * number, np.uint8)).save(folder / f"{number}.png")
    study = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    study["images"] = {"dataset": "folder", "path": "pictures", "size": 16, "shards": 2}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    indices = [f"results/smoke/data/images/{split}.index.csv" for split in ("train", "heldout")]

    def made_by(*words: str) -> set[str]:
        done = project.snakemake(*words, *indices, "--printshellcmds", "--cores", "1", "--configfile", "study.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        return {line.split("output:")[1].strip() for line in lines if line.strip().startswith("output:")}

    assert made_by() == set(indices)
    assert made_by("-n") == set()
    Image.new("RGB", (16, 16)).save(tmp_path / "pictures" / "train" / "cat" / "new.png")
    assert made_by() == {indices[0]}
    assert "train/cat/new.png,0" in (tmp_path / indices[0]).read_text()
