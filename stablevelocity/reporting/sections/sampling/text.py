"""What the report says about StableVS and few steps."""

import math

from stablevelocity.reporting.blocks import Block, Figure, Prose, Table
from stablevelocity.reporting.describe import SOLVERS, decoder_text, number, signed, sweep_text
from stablevelocity.reporting.page import Context
from stablevelocity.reporting.published import published_table
from stablevelocity.reporting.source import Frame

NAMES = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "feature_distance": "Feature distance", "fid": "FID"}
PUBLISHED_TABLES = {
    "table4_stablevs_text_to_image.csv": "Table 4 of the paper",
    "table5_stablevs_text_to_video.csv": "Table 5 of the paper",
    "ablation_xi_sampling.csv": "The paper's sweep of xi",
}
REGIMES = {"none": "own grid", "stablevs": "StableVS", "control": "control"}


def text(context: Context) -> list[Block]:
    sweep = context.study.sampling.sweep
    shared = sweep_text(context.study, (*sweep.solvers, *sweep.thinned))
    how = (
        f"Runs {', '.join(context.study.sweep_runs())}; {sweep.images:,} samples each, same noise and labels in "
        f"all; {shared}; long run: {sweep.base_steps} steps of the same solver; decoder: "
        f"{decoder_text(context.study)}."
    )
    blocks: list[Block] = [
        Prose(
            "StableVS keeps the base solver's steps above xi and replaces those below by a few closed-form "
            "steps. The control arm takes the base solver's own step on the very same grid: StableVS minus "
            "control is the closed form's own effect, control minus base is the grid's. On the linear path "
            "without added noise the closed form is the Euler step, so for Euler the two must coincide."
        ),
        Prose(_why(context)),
        Figure(
            "stablevs",
            "StableVS, control and base solver: PSNR to the long run and FID over xi and the number of "
            "low-regime steps, mean over the swept runs. Right: the paper's own sweep on SD3.5-Large.",
            alt="PSNR and FID against xi for three numbers of low-regime steps; a published panel beside.",
            how=how,
        ),
        _stablevs(context, how),
        *(
            published_table(context.published(name), title, f"config/published/{name}, from secondary summaries.")
            for name, title in PUBLISHED_TABLES.items()
        ),
        *_elsewhere(context),
        Figure(
            "few_step",
            "FID against network calls. Lines: base solvers on their own grids. Stars: StableVS, circles: its control.",
            alt="FID against the number of network calls for each solver and swept run.",
            how=how,
        ),
        _few_step(context, how),
    ]
    return blocks


def _elsewhere(context: Context) -> list[Block]:
    """Where the published tables' own pipelines are run, when this study does not."""
    if context.study.pretrained is not None:
        return []
    return [
        Prose(
            "StableVS on the four pipelines of those tables, run for real on tiny models of their classes, is a study "
            "of its own, config/pretrained-tiny.yaml; its tables, panels and videos are kept in "
            "results/reference/pretrained-tiny, its report in report.html there."
        )
    ]


def _why(context: Context) -> str:
    """Why this model may differ from the large ones: where its latents' variance starts."""
    table = context.table("variance")
    rows = None if table is None else table[(table["source"] == "latents") & (table["law"] == "empirical")]
    if rows is None or rows.empty:
        return "The variance of the latents was not measured in this study, so there is no split point to choose xi by."
    row = rows.iloc[0]
    split, dimension = float(row["split_point"]), int(row["dimension"])
    start = (
        f"The latents of this study have {dimension:,} dimensions and their variance starts at t = {number(split, 2)} "
    )
    start += f"(95 % {number(row['split_low'], 2)} to {number(row['split_high'], 2)})"
    if not math.isfinite(split) or split <= 0:
        return f"The latents of this study have {dimension:,} dimensions and no low-variance regime on this grid."
    if split < 0.8:
        return (
            f"{start}, well below the paper's xi of 0.85. Between the two, several data points still compete for "
            "a noised latent, the path bends there, and thinning its steps costs accuracy. The large models "
            "differ in their dimension: the paper's own curve of 4,096-dimensional ImageNet latents rises at "
            "0.84 (published, read off by eye), and theirs have 65,536 dimensions and more, so that 0.85 lies in "
            "their low-variance regime. That last step is the paper's trend, not a measurement of this study."
        )
    return f"{start}, as the paper's choice of xi supposes."


def _measures(table: Frame, suffix: str = "") -> list[str]:
    return [name for name in NAMES if f"{name}{suffix}" in table]


def _stablevs(context: Context, how: str) -> Table:
    table = context.table("stablevs")
    assert table is not None
    shown = [name for name in ("psnr", "fid") if f"{name}_stablevs" in table]
    columns = ["Run", "Solver", "xi", "Low steps", "Calls"]
    for name in shown:
        columns += [f"{NAMES[name]} StableVS", "control", "base", "step's effect", "grid's effect"]
    rows = []
    for row in table.to_dict("records"):
        cells = [row["run"], SOLVERS[row["solver"]], f"{row['xi']:g}", str(row["low_steps"]), str(row["nfe"])]
        for name in shown:
            cells += [number(row[f"{name}_{arm}"]) for arm in ("stablevs", "control", "base")]
            cells += [signed(row[f"{name}_{effect}"], 2) for effect in ("step", "grid")]
        rows.append(cells)
    note = " Base: the same solver on its own grid with as many calls, interpolated between the step counts that were "
    note += "run; a dash where it would have to be extrapolated. All measures: tables/stablevs.csv."
    return Table("StableVS sweep, measured", columns, rows, how=how + note, text_columns=2, folded=True)


def _few_step(context: Context, how: str) -> Table:
    table = context.table("few_step")
    assert table is not None
    measures = _measures(table)
    rows = []
    for row in table.to_dict("records"):
        grid = REGIMES[row["low_regime"]]
        if row["low_regime"] != "none":
            grid += f", xi {row['xi']:g}, {row['low_steps']:.0f} low steps"
        cells = [row["run"], SOLVERS[row["solver"]], grid, str(row["steps"]), str(row["nfe"])]
        cells += ["same" if math.isinf(row[name]) else number(row[name]) for name in measures]
        rows.append(cells)
    columns = ["Run", "Solver", "Grid", "Steps", "Calls", *(NAMES[name] for name in measures)]
    title = "Every sampler by its network calls, measured"
    return Table(title, columns, rows, how=how, text_columns=3, folded=True)
