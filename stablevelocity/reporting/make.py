"""Make one table or figure, or the claims, of a study's results."""

from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, write_json
from stablevelocity.reporting import registry
from stablevelocity.reporting.claims import records
from stablevelocity.reporting.describe import scope_text
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.spec import Product
from stablevelocity.study import Study

DIGITS = "%.6g"


def make_table(study: Study, folder: Path, name: str, out: Path) -> None:
    """Write table `name` to `out` (CSV).

    Rows are named by the columns that the registry calls its keys. Columns that start with `published_` hold the
    paper's values, all others were measured here. Raises UserError for a name that the study does not have.
    """
    product = _of(registry.tables(study), "table", name, study)
    frame = product.load()(Results(study, folder))
    missing = [key for key in product.keys if key not in frame]
    assert not missing, f"table {name} lacks its keys {missing}"
    with atomic_write(out) as temporary:
        frame.to_csv(temporary, index=False, float_format=DIGITS)


def make_figure(study: Study, folder: Path, name: str, out: Path, *, serif: bool = False) -> None:
    """Draw figure `name` at both widths and write all its files beside each other; `out` is the path of one of them.

    Raises UserError for a name that the study does not have.
    """
    from stablevelocity.reporting.figures import SUFFIXES, save, styled

    product = _of(registry.figures(study), "figure", name, study)
    for width, suffixes in SUFFIXES.items():
        with styled(width, serif=serif):
            save(product.load()(Results(study, folder)), out, suffixes)


def make_claims(study: Study, folder: Path, out: Path) -> None:
    """Test every claim that the study's tables speak of, and write them to `out` (claims.json)."""
    results = Results(study, folder, tables=registry.tables(study))
    claims = [c for section in registry.sections(study) if section.has_claims for c in section.load("claims")(results)]
    write_json(out, records(claims, scope_text(study)))


def _of(products: dict[str, Product], kind: str, name: str, study: Study) -> Product:
    if name not in products:
        raise UserError(f"{kind} {name!r}: study {study.name} has {', '.join(products)}")
    return products[name]
