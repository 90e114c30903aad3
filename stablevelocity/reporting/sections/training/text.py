"""What the report says about the training runs."""

from stablevelocity.reporting.blocks import Block, Figure, Prose, Table
from stablevelocity.reporting.describe import (
    METRICS,
    data_text,
    decoder_text,
    guidance_text,
    interval,
    model_text,
    number,
    plus_minus,
    sampler_text,
    signed,
)
from stablevelocity.reporting.page import Context
from stablevelocity.reporting.published import published_table
from stablevelocity.reporting.sections.training.data import SHOWN
from stablevelocity.reporting.source import Frame
from stablevelocity.reporting.statistics import t_factor
from stablevelocity.study.methods import alignment_text, kind, target_text

INTERVALS = (
    "± sd: over seeds. 95 %: Student's t over seeds. Differences are paired by seed; their 95 % interval pools the "
    "seeds' spread of all arms."
)


def text(context: Context) -> list[Block]:
    study = context.study
    seeds = len(study.training.seeds)
    if seeds > 1:
        factor = t_factor(seeds - 1) / seeds**0.5
        wide = (
            f"With {seeds} seeds the t-interval of one arm reaches {factor:.1f} standard deviations to each side; the "
            "interval of a difference therefore takes the spread from all arms together."
        )
    else:
        wide = "With one seed there is no interval, and no comparison of arms can be concluded."
    blocks: list[Block] = [
        Prose(
            f"Unless its label says otherwise, an arm trains {model_text(study)} on {data_text(study)}, "
            f"{study.training.steps:,} steps of batch {study.training.batch}, from the same seeds, with the same "
            f"data order and noise for each seed. {wide} Verdicts are not corrected for the number of comparisons."
        ),
        _arms(context),
    ]
    if context.has_figure("training_fidelity"):
        blocks.append(
            Figure(
                "training_fidelity",
                "FID by arm. Hollow: each seed. Filled: the mean. Bar: 95 % t-interval over the seeds; an arrow where "
                "it leaves the frame. The FID of real held-out images is written in the corner (dotted line where it "
                "falls into the frame): FID falls as the number of images grows, so it bounds an arm only at equal "
                "numbers.",
                alt="FID of each arm with its seeds and interval.",
                how=_how(context, study.sampling.main),
            )
        )
    main = study.sampling.main
    blocks += _measured(context, "table2", f"Table 2. All arms, {guidance_text(study.sampler(main))}, measured", main)
    blocks.append(_differences(context))
    blocks.append(_published(context, "table2_model_scale_nocfg.csv", "Table 2 of the paper", "no guidance"))
    blocks += _table3(context)
    variants = "table3_alignment_variants.csv"
    blocks.append(_published(context, variants, "Table 3 of the paper", "no guidance"))
    blocks += _ablations(context)
    for name in ("figure3a", "figure3b"):
        if context.has_figure(name):
            blocks.append(_figure3(context, name))
    if context.table("table1") is not None:
        guided = [name for name, sampler in study.sampling.samplers.items() if sampler.guidance > 1]
        blocks += _measured(context, "table1", "Table 1. With guidance, measured", *guided)
        note = "guidance 1.8 for t in [0, 0.7], 250-step Euler-Maruyama"
        blocks.append(_published(context, "table1_imagenet256_cfg.csv", "Table 1 of the paper", note))
    blocks += [
        Figure(
            "samples",
            "Images of each arm: first seed, last step. Position by position all arms start from the same noise "
            "and label.",
            alt="A grid of generated images for each arm.",
            how=_how(context, study.sampling.main),
        ),
        Figure(
            "training_curves",
            "Losses while training, by regime. Thick: first seed; thin: the others. The velocity losses of CFM "
            "and StableVM are to different targets: the smaller variance of StableVM's lowers its loss without a "
            "better network.",
            alt="Velocity and alignment losses against training steps.",
            how="runs/<run>/metrics.csv of every run; running means over 5 rows.",
        ),
        _every_run(context),
    ]
    return blocks


def _how(context: Context, *samplers: str) -> str:
    study = context.study
    chosen = "; ".join(f"{name}: {sampler_text(study.sampling.samplers[name])}" for name in samplers)
    seeds = ", ".join(str(seed) for seed in study.training.seeds)
    reference = study.evaluation.reference or "the train split"
    return (
        f"Runs <arm>-s<seed>, seeds {seeds}, EMA weights. Sampler {chosen}; {study.sampling.images:,} samples per run, "
        f"sampling seed {study.sampling.seed}; decoder: {decoder_text(study)}. Features: {study.evaluation.extractor}; "
        f"reference: {reference}."
    )


def _cell(row: dict, metric: str) -> str:
    return plus_minus(row[metric], row.get(f"{metric}_sd", float("nan")))


def _made_by(row: dict) -> str:
    """ "cfm-s0, s1": the runs of a row."""
    seeds = str(row["seed_list"]).split(" ", 1)[1].split(", ")
    return f"{row['arm']}-" + ", ".join(f"s{seed}" for seed in seeds)


def _present(table: Frame) -> list[str]:
    return [metric for metric in SHOWN if metric in table and metric not in ("fid", "fid_infinity")]


def _measured(context: Context, name: str, title: str, *samplers: str) -> list[Block]:
    table = context.table(name)
    if table is None:
        return []
    metrics = _present(table)
    papers = [metric for metric in SHOWN if f"published_{metric}" in table]
    changed = "fid_from_baseline" in table
    columns = ["Arm", "Runs", "Steps", "FID", "95 %"]
    columns += ["FID – baseline", "95 %"] if changed else []
    columns += [METRICS[metric] for metric in metrics]
    first = len(columns)
    columns += [f"{METRICS[metric]} (published)" for metric in papers]
    rows = []
    for row in table.to_dict("records"):
        cells = [row["label"], _made_by(row) + (f"; {row['sampler']}" if len(samplers) > 1 else ""), f"{row['step']:,}"]
        cells += [_cell(row, "fid"), interval(row["fid_low"], row["fid_high"])]
        if changed:
            cells += [signed(row["fid_from_baseline"])]
            cells += [interval(row["fid_from_baseline_low"], row["fid_from_baseline_high"])]
        cells += [number(row[metric]) for metric in metrics]
        rows.append(cells + [number(row[f"published_{metric}"]) for metric in papers])
    cells = tuple(range(first, len(columns)))
    how = f"{_how(context, *samplers)} {INTERVALS}"
    return [Table(title, columns, rows, how=how, text_columns=2, published_columns=cells)]


def _table3(context: Context) -> list[Block]:
    table = context.table("table3")
    if table is None or "fid_from_base" not in table:
        return []
    metrics = _present(table)
    rows = []
    for row in table.to_dict("records"):
        cells = [row["base"], row["label"], _made_by(row), f"{row['step']:,}", _cell(row, "fid")]
        cells += [signed(row["fid_from_base"]), interval(row["fid_from_base_low"], row["fid_from_base_high"])]
        cells += [number(row[metric]) for metric in metrics]
        rows.append(cells)
    columns = ["Base", "Arm", "Runs", "Steps", "FID", "FID – base", "95 %", *(METRICS[metric] for metric in metrics)]
    how = f"{_how(context, context.study.sampling.main)} Last step of each arm. {INTERVALS}"
    return [Table("Table 3. By base method, measured", columns, rows, how=how, text_columns=3)]


def _arms(context: Context) -> Table:
    study = context.study
    rows = []
    for name, arm in study.arms.items():
        training = study.arm_training(name)
        cells = [arm.label, kind(arm).method, target_text(arm), alignment_text(arm)]
        rows.append([*cells, f"{training.steps:,}", str(len(training.seeds))])
    how = (
        "The study file's settings. The paper: StableVM for t >= 0.5 with a bank of 256 per class; its code keeps 256 "
        "rows for the null class, its text says a bank over all classes."
    )
    columns = ["Arm", "Method", "Target", "Alignment", "Steps", "Seeds"]
    return Table("The arms", columns, rows, how=how, text_columns=4, folded=True)


def _ablations(context: Context) -> list[Block]:
    table = context.table("ablations")
    if table is None:
        return []
    rows = []
    for row in table.to_dict("records"):
        setting, unknown = row["setting"].rsplit(".", 1)[1], float("nan")
        cells = [setting, str(row["value"]), row["label"], _made_by(row), f"{row['step']:,}", _cell(row, "fid")]
        change, low, high = (row.get(f"fid_from_base{end}", unknown) for end in ("", "_low", "_high"))
        rows.append([*cells, signed(change), interval(low, high), number(row.get("published_fid", unknown))])
    columns = ["Setting", "Value", "Arm", "Runs", "Steps", "FID", "FID – base", "95 %", "FID (published)"]
    how = f"{_how(context, context.study.sampling.main)} Each arm differs from the base, written first, in one setting "
    how += f"alone; null_capacity None: the bank's capacity for every class. {INTERVALS}"
    title, name = "Ablations of training, measured", "ablation_xi_training.csv"
    return [
        Table(title, columns, rows, how=how, text_columns=4, published_columns=(len(columns) - 1,)),
        _published(context, name, "Ablation of xi in the paper", "no guidance"),
    ]


def _differences(context: Context) -> Table:
    table = context.table("differences")
    assert table is not None
    study = context.study
    rows = []
    if len(table):
        table = table[(table["sampler"] == study.sampling.main) & (table["metric"] == "fid")]
        table = table[table["step"] == table.groupby("comparison")["step"].transform("max")]
        for row in table.sort_values(["comparison", "step"]).to_dict("records"):
            rows.append(
                [
                    f"{study.arms[row['arm']].label} – {study.arms[row['against']].label}",
                    signed(row["difference"]),
                    interval(row["low"], row["high"]),
                    interval(row["paired_low"], row["paired_high"]),
                    _percent(row["relative"]),
                    str(row["seeds"]),
                    _percent(row["published_relative"]),
                ]
            )
    columns = [
        "Comparison, last step",
        "FID difference",
        "95 % pooled",
        "95 % of the pair",
        "Relative",
        "Seeds",
        "Relative (published)",
    ]
    how = (
        f"{_how(context, study.sampling.main)} Pooled: residual spread of all arms, which assumes that seeds "
        "scatter alike in all arms. Of the pair: Student's t of the per-seed differences alone. The published "
        "column is SiT-XL/2's at 100,000 iterations on ImageNet 256 (figure 3b, table 3). Earlier steps and other "
        "metrics: tables/differences.csv."
    )
    title = "Differences between arms, measured"
    return Table(title, columns, rows, how=how, published_columns=(len(columns) - 1,))


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:+.1f} %"


def _published(context: Context, name: str, title: str, note: str) -> Table:
    how = f"ImageNet 256, 50,000 samples, Inception features, {note}; config/published/{name}."
    return published_table(context.published(name), title, how)


def _figure3(context: Context, name: str) -> Figure:
    if name == "figure3a":
        return Figure(
            name,
            "Figure 3a. Alignment loss of the trained networks over t; bands: 15 to 85 % of the samples.",
            alt="Alignment loss against time for each aligned arm.",
            how="runs/<run>/alignment.csv: last step, mean over seeds, noised training latents.",
        )
    return Figure(
        name,
        "Figure 3b. FID by the regime that is aligned. Left measured here, right the paper's values, on axes of "
        "their own.",
        alt="FID without alignment, with it everywhere, below xi, above xi; published bars beside.",
        how=_how(context, context.study.sampling.main),
    )


def _every_run(context: Context) -> Table:
    """Each single number with its run, sampler and bootstrap interval."""
    table = context.table("runs")
    assert table is not None
    metrics = [metric for metric in SHOWN if metric in set(table["metric"])]
    rows = []
    for (run, step, sampler), part in table.groupby(["run", "step", "sampler"], sort=False):
        values = part.set_index("metric")
        cells = [str(run), str(sampler), f"{step:,}"]
        for metric in metrics:
            if metric not in values.index:
                cells.append("–")
                continue
            found = values.loc[metric]
            bounds = "" if found["low"] != found["low"] else f" [{number(found['low'])}, {number(found['high'])}]"
            cells.append(f"{number(found['value'])}{bounds}")
        rows.append(cells)
    samplers = context.study.sampling.samplers
    columns = ["Run", "Sampler", "Steps", *(METRICS[metric] for metric in metrics)]
    how = f"{_how(context, *samplers)} Brackets: 95 % bootstrap over that run's samples; it knows nothing of seeds."
    return Table("Every run, measured", columns, rows, how=how, text_columns=2, folded=True)
