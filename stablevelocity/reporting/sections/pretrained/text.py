"""What the report says about StableVS on pretrained pipelines."""

from stablevelocity.reporting.blocks import Block, Figure, Prose, Table
from stablevelocity.reporting.describe import number
from stablevelocity.reporting.page import Context
from stablevelocity.reporting.published import published_table
from stablevelocity.reporting.sections.pretrained import FRAMES, comparison_file, families
from stablevelocity.reporting.source import Frame
from stablevelocity.study.pretrained_settings import SOLVERS

TITLES = {"sd35": "SD3.5", "flux": "Flux", "qwen-image": "Qwen-Image", "wan22": "Wan2.2"}
BASES = {"euler": "Euler", "dpm": "DPM-Solver++", "unipc": "UniPC"}
KINDS = {"long": "", "short": "", "stablevs": " + StableVS", "control": ", control"}

EQUAL = "equal by construction, tested"


def text(context: Context) -> list[Block]:
    blocks: list[Block] = [Prose(_what(context)), Prose(_finding())]
    judge = context.table("pretrained_judge")
    if judge is not None:
        ceiling = ", ".join(f"{row.scenes} {100 * row.score:.1f} %" for row in judge.itertuples())
        blocks.append(Prose(f"The digit judge's score of real scenes with unseen handwriting, its ceiling: {ceiling}."))
    how = _how(context)
    models = context.table("tiny_models")
    if models is not None:
        blocks.append(
            Table(
                "The tiny models",
                ["Model", "Transformer, parameters", "Autoencoder, parameters", "Autoencoder's PSNR, dB", "Last loss"],
                [
                    [
                        TITLES[row.family],
                        f"{row.transformer_parameters:,}",
                        f"{row.autoencoder_parameters:,}",
                        number(row.autoencoder_psnr),
                        number(row.loss),
                    ]
                    for row in models.itertuples()
                ],
                how="PSNR of training scenes through the autoencoder: no sample is drawn better than that. Where it is "
                "below 25 dB, colours and small strokes are lost before any sampler comes into it, and scores are low "
                "for that reason.",
            )
        )
    images, videos = context.table("table4"), context.table("table5")
    if images is not None:
        blocks.append(_arms(images, "Table 4 as measured: images", how))
        blocks.append(_published(context, "table4_stablevs_text_to_image.csv", "Table 4 of the paper"))
        blocks.append(
            Figure(
                "pretrained_images",
                "The same prompts from the same noise: long run, as few base steps, StableVS, control.",
                alt="Grids of generated digit scenes, one row per way of sampling; rows are nearly alike.",
                how=how,
            )
        )
    if videos is not None:
        blocks.append(_arms(videos, "Table 5 as measured: videos", how))
        blocks.append(_published(context, "table5_stablevs_text_to_video.csv", "Table 5 of the paper"))
        blocks.append(
            Figure(
                "pretrained_videos",
                f"Frames of some videos from the same noise, by way of sampling; at most {FRAMES} of each.",
                alt="Strips of video frames in which a coloured digit moves; strips of one prompt are nearly alike.",
                how=how,
            )
        )
        blocks += _moving(context, how)
    blocks += _sweep(context, how)
    blocks += _errors(context)
    return blocks


def _moving(context: Context, how: str) -> list[Block]:
    """The side-by-side preview of each video family, and whose files score the videos."""
    settings = context.study.pretrained
    assert settings is not None
    blocks: list[Block] = []
    for family in families(context.study, video=True):
        blocks.append(
            Figure(
                comparison_file(family),
                f"{TITLES[family]}, the first prompts (rows) from the same noise: long run, as few base steps, "
                f"StableVS, control. The same as a video: pretrained/{family}/comparison.mp4.",
                alt="An animation of videos side by side; those of one row are nearly alike.",
                how=how,
            )
        )
        chosen = settings.families[family]  # type: ignore[index]
        category = chosen.category
        where = f"pretrained/{family}/samples/<arm>/{category}"
        blocks.append(
            Prose(
                f"The videos lie in {where}/0001.mp4 and on, one per prompt in the prompts' order, further ones in "
                f"{category}-1 and so on."
                + (
                    " Such a folder is what T2V-CompBench's own MLLM_eval/eval_consistent_attr.py takes as "
                    "--video-path, with its meta_data/consistent_attribute_binding.json as --read-prompt-file; it asks "
                    "LLaVA-1.6-34B and is no part of this study."
                    if category == "consistent_attr"
                    else ""
                )
            )
        )
    return blocks


def _what(context: Context) -> str:
    settings = context.study.pretrained
    assert settings is not None
    tiny = [TITLES[name] for name in settings.tiny]
    if not tiny:
        return "The original models, each as published, with the base solver of the paper's tables."
    return (
        f"Tiny models of the very classes of {', '.join(tiny)} (transformer, autoencoder, pipeline, scheduler), "
        "trained here on captioned scenes of coloured digits and called as the originals are; a deterministic word "
        "encoder stands for the text encoders. Their scores say how the samplers compare on trained flow models; "
        "they say nothing about the originals' quality, and are not to be read against the published numbers."
    )


def _finding() -> str:
    return (
        "On the linear path, which all four models use, the closed-form step without added noise is the Euler step. "
        "With an Euler base StableVS and its control arm therefore make the same pictures bit for bit: all of the "
        "difference to the base solver is where the steps stand. With DPM-Solver++ and UniPC the two differ, and the "
        "rows below say how much."
    )


def _how(context: Context) -> str:
    settings = context.study.pretrained
    assert settings is not None
    counts = "; ".join(
        f"{TITLES[name]}: {family.images} pictures a prompt"
        + (f", {family.tiny.steps:,} training steps of batch {family.tiny.batch}" if family.tiny else "")
        for name, family in settings.families.items()
    )
    return (
        f"xi {settings.xi:g}, {settings.low_steps} steps below it, seed {settings.seed}; {counts}. PSNR is the mean "
        "over pictures, each counted as at most 60 dB, against the long run of the same base solver. Score: GenEval's "
        "protocol (images), T2V-CompBench's consistency (videos), by the digit judge for tiny models; +- is one "
        "standard error over prompts. Seconds per picture at this study's batch size: end to end, denoising alone, and "
        "the part below xi."
    )


def _arms(table: Frame, title: str, how: str) -> Table:
    tasks = [column for column in table if str(column).startswith("score_") and column != "score_error"]
    extra = [column for column in ("lpips",) if column in table]
    columns = [
        "Model",
        "Sampler",
        "Steps",
        "Below xi",
        "PSNR",
        "SSIM",
        *(name.upper() for name in extra),
        "Score",
        "+-",
    ]
    columns += [str(task).removeprefix("score_").replace("_", " ") for task in tasks]
    columns += ["s all", "s denoising", "s below xi"]
    rows = []
    for _, row in table.iterrows():
        numbers = [row["psnr"], row["ssim"], *(row[name] for name in extra), row["score"], row["score_error"]]
        numbers += [row[task] for task in tasks]
        numbers += [row[f"seconds_{part}"] for part in ("end_to_end", "denoising", "low_regime")]
        sampler = BASES[row["solver"]] + KINDS[row["kind"]]
        steps = [str(int(row["steps"])), str(int(row["low_steps"]))]
        rows.append([TITLES[row["family"]], sampler, *steps, *(number(float(value)) for value in numbers)])
    return Table(title, columns, rows, how=how, text_columns=2)


def _published(context: Context, name: str, title: str) -> Block:
    return published_table(context.published(name), title, f"config/published/{name}, from secondary summaries.")


def _sweep(context: Context, how: str) -> list[Block]:
    table = context.table("pretrained_xi")
    if table is None:
        return []
    columns = ["Model", "Sampler", "xi", "Steps", "PSNR", "SSIM", "Score", "+-"]
    settings = context.study.pretrained
    assert settings is not None
    rows = []
    # Control beside StableVS at each xi.
    for _, row in table.sort_values(["family", "xi", "kind"], ascending=[True, True, False], kind="stable").iterrows():
        cells = [
            f"{row['xi']:g}",
            str(int(row["steps"])),
            *(number(float(row[name])) for name in ("psnr", "ssim", "score", "score_error")),
        ]
        title, base = TITLES[row["family"]], BASES[row["solver"]]
        rows.append([title, base + KINDS[row["kind"]], *cells])
        drawn = ((table["family"] == row["family"]) & (table["kind"] == "control") & (table["xi"] == row["xi"])).any()
        if settings.control_equals_stablevs(row["family"]) and not drawn:
            rows.append([title, f"{base}{KINDS['control']} ({EQUAL})", *cells])
    mains = ", ".join(f"{TITLES[name]} {BASES[SOLVERS[name][0]]}" for name in families(context.study))
    return [
        Figure(
            "pretrained_xi",
            "The sweep of xi: a larger xi thins more of the schedule. Right: the paper's own, on SD3.5-Large.",
            alt="PSNR and prompt score against xi for each model, and a published panel.",
            how=f"Main base solver of each: {mains}. {how}",
        ),
        Table("The sweep of xi", columns, rows, how=f"{how} {_equal(context)}".rstrip(), text_columns=2),
        _published(context, "ablation_xi_sampling.csv", "The paper's sweep of xi"),
    ]


def _equal(context: Context) -> str:
    """What "equal by construction" stands on, in this study's own pictures."""
    settings = context.study.pretrained
    table = context.table("table4")
    assert settings is not None
    if table is None or not any(settings.control_equals_stablevs(family) for family in families(context.study)):
        return ""
    drawn = table[table["arm"] == "euler-stablevs"]
    gaps = ", ".join(f"{TITLES[row.family]} {number(float(row.psnr_over_control))} dB" for row in drawn.itertuples())
    return (
        f"Control rows marked “{EQUAL}” were not drawn: with Euler and no added noise both arms take the same step bit "
        f"for bit, which the package's tests assert. At the table's xi both were drawn, and differ by: {gaps}."
    )


def _errors(context: Context) -> list[Block]:
    table = context.table("scheduler_errors")
    if table is None:
        return []
    settings = context.study.pretrained
    assert settings is not None
    rows = [
        [
            BASES[str(row["solver"])] + {**KINDS, "long": ", long", "short": ", short"}[row["arm"]],
            str(int(row["dimension"])),
            str(int(row["calls"])),
            number(float(row["rms_error"])),
        ]
        for _, row in table.iterrows()
    ]
    how = (
        f"Gaussian mixtures with closed-form velocity, {settings.gmm_points} points, shift 3; root mean square error "
        "per coordinate against a 1,000-step Heun solution from the same noise. No network, so no network error."
    )
    return [Table("Schedulers on exactly known velocities", ["Sampler", "Dimension", "Calls", "Error"], rows, how=how)]
