"""What `verify` says of results whose records or files were changed; whole studies: tests/workflow/test_upgrade.py."""

from stablevelocity.cli.verify import differences
from stablevelocity.provenance import provenance_file, write_provenance


def test_a_damaged_record_hides_nothing_that_others_say(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("1\n")
        write_provenance([tmp_path / name], inputs=[], settings="", code="c", command=["x"])
    provenance_file(tmp_path / "a.csv").write_text("{")
    (tmp_path / "b.csv").write_text("2\n")
    found = list(differences(tmp_path))
    assert any("a.csv.provenance.json" in line for line in found)
    assert any(line.startswith(f"{tmp_path}/b.csv: differs from its checksum") for line in found)
