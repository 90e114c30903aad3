# Tables, figures, claims and the page, from the registry of the report's sections. Each takes seconds: on a cluster they
# are made where Snakemake runs, a few at a time (`report_slots` in the profile).
import os

from stablevelocity.reporting import registry
from stablevelocity.study.layout import published_folder

TABLES = registry.tables(STUDY)
FIGURES = registry.figures(STUDY)
FIGURE_FILES = ("pdf", "svg", "png", "column.pdf", "column.png")
PUBLISHED = published_folder()
# Relative, so that a copied clone makes nothing again.
TEMPLATES = sorted(os.path.relpath(file) for file in (Path(registry.__file__).parent / "templates").iterdir())


def within(files):
    return [f"{LAYOUT.root}/{file}" for file in files]


def inputs_of(product):
    """What a table or figure reads: files of the study, and values of the paper."""
    return within(product.inputs(STUDY)) + [f"{PUBLISHED}/{file}" for file in product.published]


def settings_of(products, kind):
    """Of the table or figure that the wildcard `kind` names: the parts of the study that it depends on."""
    return lambda wildcards: settings(*registry.settings_of(STUDY, products[wildcards[kind]]))


rule table:
    input:
        lambda wildcards: inputs_of(TABLES[wildcards.table]),
    output:
        LAYOUT.table(),
    log:
        LAYOUT.log("table-{table}"),
    wildcard_constraints:
        table=one_of(TABLES),
    localrule: True
    resources:
        report_slots=1,
    params:
        **stage(
            lambda wildcards: TABLES[wildcards.table].module, settings=settings_of(TABLES, "table"), follows_code=True
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " table --study {STUDY_FILE:q} --results {LAYOUT.root:q} --name {wildcards.table:q}"
        " --output {output:q}"


rule tables:
    input:
        [LAYOUT.table(name) for name in TABLES],


rule paper_tables:
    input:
        within(registry.claims_inputs(STUDY)),
        sorted(str(file) for file in PUBLISHED.glob("*.csv")),
    output:
        within(registry.paper_files(STUDY)),
    log:
        LAYOUT.log("paper_tables"),
    localrule: True
    params:
        **stage("reporting.paper_rows", settings=settings(STUDY), follows_code=True),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " paper-tables --study {STUDY_FILE:q} --results {LAYOUT.root:q}"


rule figure:
    input:
        lambda wildcards: inputs_of(FIGURES[wildcards.figure]),
    output:
        [LAYOUT.figure(suffix=suffix) for suffix in FIGURE_FILES],
    log:
        LAYOUT.log("figure-{figure}"),
    wildcard_constraints:
        figure=one_of(FIGURES),
    priority: lambda wildcards: FIRST if FIGURES[wildcards.figure].module.endswith("variance.figures") else 0
    localrule: True
    resources:
        report_slots=1,
    params:
        **stage(
            lambda wildcards: FIGURES[wildcards.figure].module,
            settings=settings_of(FIGURES, "figure"),
            follows_code=True,
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " figure --study {STUDY_FILE:q} --results {LAYOUT.root:q} --name {wildcards.figure:q}"
        " --output {output[0]:q}"


rule figures:
    input:
        [LAYOUT.figure(name) for name in FIGURES],


rule claims:
    input:
        within(registry.claims_inputs(STUDY)),
        [file for file in TEMPLATES if file.endswith("claims.yaml")],
    output:
        LAYOUT.claims,
    log:
        LAYOUT.log("claims"),
    localrule: True
    params:
        **stage(*registry.claims_modules(), follows_code=True),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " claims --study {STUDY_FILE:q} --results {LAYOUT.root:q} --output {output:q}"


rule report:
    input:
        within(registry.page_inputs(STUDY)),
        TEMPLATES,
        [str(file) for file in [registry.evidence(STUDY)] if file and file.exists()],
    output:
        LAYOUT.report,
    log:
        LAYOUT.log("report"),
    localrule: True
    params:
        **stage(*registry.page_modules(), settings=settings(STUDY), follows_code=True),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " report --study {STUDY_FILE:q} --results {LAYOUT.root:q} --output {output:q}"


# It speaks of other studies too, so no rule makes it.
onsuccess:
    shell("stablevelocity index results")


PRODUCTS += [
    rules.tables.input,
    rules.paper_tables.output,
    rules.figures.input,
    rules.claims.output,
    rules.report.output,
]
PRODUCTS += [LAYOUT.figure(name, suffix) for name in FIGURES for suffix in FIGURE_FILES]
