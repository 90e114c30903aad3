"""Make one table of a study: `make_table(study, results, name, out)`."""

from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.provenance import write_provenance
from stablevelocity.reporting import registry
from stablevelocity.reporting.source import PUBLISHED, Frame, Source
from stablevelocity.study import Study

DIGITS = "%.6g"


def make_table(study: Study, results: Path, name: str, out: Path, *, published: Path = PUBLISHED) -> None:
    """Write table `name` of the registry to `out` (CSV), and beside it where it came from.

    Rows are named by the columns that the registry calls its keys. Columns that start with `published_` hold the
    paper's values, all others were measured here. Raises UserError for a name the study does not have.
    """
    tables = registry.tables(study)
    if name not in tables:
        raise UserError(f"table {name!r}: study {study.name} has {', '.join(tables)}")
    product = tables[name]
    frame: Frame = product.load()(Source(study, results, published))
    missing = [key for key in product.keys if key not in frame]
    assert not missing, f"table {name} lacks its keys {missing}"
    with atomic_write(out) as temporary:
        frame.to_csv(temporary, index=False, float_format=DIGITS)
    write_provenance(out, study=study.name, table=name, inputs=product.inputs(study), published=list(product.published))
