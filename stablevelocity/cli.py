"""`stablevelocity <verb>`: a thin layer, each verb one call into the library. Heavy imports happen in the verb."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from stablevelocity.errors import UserError
from stablevelocity.pretrained import verbs as pretrained_verbs
from stablevelocity.study import Study, load_study

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

StudyFile = Annotated[Path, typer.Option("--study", help="study file, YAML or JSON")]
Output = Annotated[Path, typer.Option("--output")]


def main() -> None:
    """Entry point: a UserError, or a file that is not there, ends in one line without traceback."""
    try:
        app()
    except UserError as error:
        logging.getLogger("stablevelocity").error(f"error: {error}")
        sys.exit(1)
    except FileNotFoundError as error:
        if error.filename is None:
            raise
        logging.getLogger("stablevelocity").error(f"error: {error.filename}: no such file")
        sys.exit(1)


@app.callback()
def prepare(
    context: typer.Context,
    log: Annotated[Path | None, typer.Option(help="also write what is said to this file")] = None,
) -> None:
    """Stable Velocity, reproduced: StableVM, VA-REPA and StableVS."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, format="%(message)s", force=True)
    logging.getLogger("stablevelocity").setLevel(logging.INFO)
    # A warning is one line, and stands in the log file too.
    warnings.formatwarning = lambda message, *where: f"warning: {message}"
    logging.captureWarnings(True)
    # Nothing but `download` may reach for the network. The hub's library reads this once, when it is imported.
    if context.invoked_subcommand == "download":
        os.environ["HF_HUB_OFFLINE"] = "0"
    else:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@app.command()
def check(study: Annotated[Path, typer.Argument(help="study file, YAML or JSON")]) -> None:
    """Check a study file and say what it would run."""
    found = load_study(study)
    found.check_paths()
    runs = found.runs()
    typer.echo(f"{study}: study {found.name!r} is valid: {len(runs)} training runs, {len(found.sample_sets())} sets")


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="study file, YAML or JSON")],
    gpus: Annotated[int, typer.Option(help="devices in all")] = 8,
    gpus_per_run: Annotated[int, typer.Option(help="devices that train one run")] = 8,
    peak: Annotated[float, typer.Option(help="TFLOP/s of one device; 989: H100 in bfloat16")] = 989.0,
    utilisation: Annotated[float, typer.Option(help="share of the peak that training reaches")] = 0.4,
    measured: Annotated[
        list[str], typer.Option(help="MODEL=images/s per device, or MODEL=metrics.csv of a run on one device")
    ] = [],  # noqa: B006 (typer reads it)
) -> None:
    """Print GPU-hours, disk and wall time per table, before they are spent."""
    from stablevelocity.plan import Throughput, plan_text, read_measured
    from stablevelocity.plan import plan as plan_of

    throughput = Throughput(peak, utilisation, read_measured(measured))
    typer.echo(plan_text(plan_of(load_study(study), throughput, devices=gpus, per_run=gpus_per_run)))


@app.command()
def schema(output: Annotated[Path | None, typer.Option("--output", help="file; none: standard output")] = None) -> None:
    """The JSON schema of study files, for editors; committed as config/study.schema.json."""
    from stablevelocity.files import atomic_write
    from stablevelocity.study import study_schema

    if output is None:
        typer.echo(study_schema(), nl=False)
    else:
        with atomic_write(output) as temporary:
            temporary.write_text(study_schema())


# --- images, autoencoder, latents, encoder ---------------------------------------------------------------


@app.command()
def image_index(study: StudyFile, split: Annotated[str, typer.Option()], output: Output) -> None:
    """List the images of a split, in their fixed order."""
    from stablevelocity.data.prepare import write_index

    write_index(load_study(study).images, "train" if split == "train" else "heldout", output)


@app.command()
def image_shard(
    study: StudyFile,
    index: Annotated[Path, typer.Option()],
    shard: Annotated[int, typer.Option(help="counted from 0")],
    of: Annotated[int, typer.Option(help="number of shards")],
    output: Output,
) -> None:
    """Decode one slice of an index into a shard."""
    from stablevelocity.data.prepare import write_image_shard

    write_image_shard(load_study(study).images, index, shard, of, output)


@app.command()
def image_manifest(
    study: StudyFile,
    index: Annotated[Path, typer.Option()],
    output: Output,
    corrupt: Annotated[Path, typer.Option(help="CSV of the files that cannot be read")],
    shards: Annotated[list[Path], typer.Argument()],
) -> None:
    """Check the shards of a split against its index, and describe them."""
    from stablevelocity.data.prepare import write_image_manifest

    write_image_manifest(load_study(study).images, index, shards, output, corrupt)


@app.command()
def autoencoder(
    study: StudyFile,
    train: Annotated[Path, typer.Option(help="manifest of the train images")],
    heldout: Annotated[Path, typer.Option(help="manifest of the held-out images")],
    output: Output,
) -> None:
    """Train the autoencoder, or describe the pretrained one, with its held-out PSNR."""
    from stablevelocity.data.encode import prepare_autoencoder

    prepare_autoencoder(load_study(study).autoencoder, train, heldout, output)


@app.command()
def latent_shard(
    images: Annotated[Path, typer.Option(help="shard of images")],
    autoencoder: Annotated[Path, typer.Option(help="description of the autoencoder")],
    output: Output,
) -> None:
    """Encode one shard of images."""
    from stablevelocity.data.encode import write_latent_shard

    write_latent_shard(images, autoencoder, output)


@app.command()
def latent_manifest(
    images: Annotated[Path, typer.Option(help="manifest of the images")],
    autoencoder: Annotated[Path, typer.Option(help="description of the autoencoder")],
    output: Output,
    shards: Annotated[list[Path], typer.Argument()],
) -> None:
    """Describe the shards of latents: counts, checksums, autoencoder, scale."""
    from stablevelocity.data.encode import write_latent_manifest

    write_latent_manifest(images, autoencoder, shards, output)


@app.command()
def encoder(
    study: StudyFile,
    train: Annotated[Path, typer.Option(help="manifest of the train images")],
    heldout: Annotated[Path, typer.Option(help="manifest of the held-out images")],
    output: Output,
) -> None:
    """Train the frozen encoder on the train split, or describe the pretrained one."""
    from stablevelocity.data.featurize import prepare_encoder

    prepare_encoder(load_study(study).encoder, train, heldout, output)


@app.command()
def feature_shard(
    images: Annotated[Path, typer.Option(help="shard of images")],
    encoder: Annotated[Path, typer.Option(help="description of the encoder")],
    output: Output,
) -> None:
    """Tokens of one shard of images by the frozen encoder."""
    from stablevelocity.data.featurize import write_feature_shard

    write_feature_shard(images, encoder, output)


@app.command()
def feature_manifest(
    encoder: Annotated[Path, typer.Option(help="description of the encoder")],
    output: Output,
    shards: Annotated[list[Path], typer.Argument()],
) -> None:
    """Describe the shards of features: counts, checksums, encoder."""
    from stablevelocity.data.featurize import write_feature_manifest

    write_feature_manifest(encoder, shards, output)


@app.command()
def online_features(
    encoder: Annotated[Path, typer.Option(help="description of the encoder")],
    images: Annotated[Path, typer.Option(help="manifest of the images")],
    output: Output,
) -> None:
    """Describe features that are to be made at every step, in the place of stored ones."""
    from stablevelocity.data.featurize import write_online_manifest

    write_online_manifest(encoder, images, output)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="hub id (owner/name), encoder (dinov2-base ...), or cifar10")],
    revision: Annotated[str | None, typer.Option(help="commit; known for the paper's models")] = None,
    output: Annotated[Path | None, typer.Option(help="file of an encoder, folder of cifar10")] = None,
) -> None:
    """Fetch a pinned model or CIFAR-10: the one verb that uses the network."""
    from stablevelocity.download import download as fetch

    typer.echo(fetch(name, revision=revision, output=output))


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="SiT or REPA checkpoint, a file of torch.save")],
    output: Output,
    kind: Annotated[str, typer.Option(help="ema or raw; needed where the file does not say")] = "",
    reversed_time: Annotated[bool, typer.Option(help="for files of SiT itself, where t = 0 is noise")] = False,
    step: Annotated[int | None, typer.Option(help="training steps, where the file does not say")] = None,
) -> None:
    """Turn a published checkpoint into safetensors, once; no code in it is run."""
    from stablevelocity.models.convert import convert_checkpoint

    if kind not in ("", "ema", "raw"):
        raise UserError(f"--kind {kind}: expected ema or raw")
    run = convert_checkpoint(checkpoint, output, kind=kind or None, reversed_time=reversed_time, step=step)
    typer.echo(f"{output}: {run.training.model.name}")


@app.command()
def convert_encoder(
    checkpoint: Annotated[Path, typer.Argument(help="encoder weights, a file of torch.save")],
    output: Output,
    part: Annotated[str, typer.Option(help="entry that holds them: target_encoder, state_dict, teacher ...")] = "",
    prefix: Annotated[str, typer.Option(help="what their names start with: module., backbone. ...")] = "",
) -> None:
    """Turn published encoder weights into safetensors, once; no code in the file is run."""
    from stablevelocity.models import convert as converting

    count = converting.convert_encoder(checkpoint, output, part=part or None, prefix=prefix)
    typer.echo(f"{output}: {count} tensors")


# --- variance --------------------------------------------------------------------------------------------


@app.command()
def gmm_variance(
    study: StudyFile,
    dimension: Annotated[int, typer.Option()],
    curve: Annotated[Path, typer.Option()],
    split_point: Annotated[Path, typer.Option()],
) -> None:
    """V_CFM(t) of a Gaussian mixture, by the empirical and the exact law."""
    from stablevelocity.variance_study import gmm_tables

    _write_tables(gmm_tables(load_study(study).variance, dimension), (curve, split_point))


@app.command()
def data_variance(
    study: StudyFile,
    source: Annotated[str, typer.Option(help="pixels or latents")],
    manifest: Annotated[Path, typer.Option()],
    curve: Annotated[Path, typer.Option()],
    split_point: Annotated[Path, typer.Option()],
) -> None:
    """V_CFM(t) of the train split's pixels or latents."""
    from stablevelocity.variance_study import data_tables

    _write_tables(data_tables(load_study(study).variance, source, manifest), (curve, split_point))


@app.command()
def variance_references(study: StudyFile, output: Output) -> None:
    """V_CFM(t) of a Gaussian mixture against the size of the empirical law."""
    from stablevelocity.variance_study import reference_table

    _write_tables([reference_table(load_study(study).variance)], [output])


@app.command()
def toy(study: StudyFile, folder: Annotated[Path, typer.Option(help="where its tables go")]) -> None:
    """The 10-dimensional mixture: CFM, STF and StableVM against the closed-form velocity."""
    from stablevelocity.toy import run_toy

    settings = load_study(study).toy
    if settings is None:
        raise UserError(f"{study}: toy is null; this study has no toy experiment")
    tables = run_toy(settings)
    _write_tables(tables, [folder / f"{name}.csv" for name in tables._fields])


@app.command()
def join_tables(output: Output, tables: Annotated[list[Path], typer.Argument()]) -> None:
    """Put the rows of CSV tables into one."""
    import pandas as pd

    _write_tables([pd.concat([pd.read_csv(table) for table in tables])], [output])


# --- training --------------------------------------------------------------------------------------------


@app.command()
def train(
    study: StudyFile,
    run: Annotated[list[str], typer.Option(help="<arm>-s<seed>; repeated: one after the other, in one job")],
    latents: Annotated[Path, typer.Option(help="manifest of the latents")],
    folder: Annotated[Path, typer.Option(help="folder of the runs; each gets its own in it")],
    features: Annotated[str, typer.Option(help="manifest of the encoder's features; empty: none")] = "",
    code: Annotated[str, typer.Option(help="hash of the code, part of the run's identity")] = "",
    launcher: Annotated[str, typer.Option(help="local, submitit-local or slurm")] = "local",
    site: Annotated[Path, typer.Option(help="what differs between clusters")] = Path("config/site.yaml"),
) -> None:
    """Train runs to their end, here or in a job, resuming from their last checkpoints."""
    from stablevelocity.cluster.launch import launch
    from stablevelocity.cluster.site import load_site
    from stablevelocity.cluster.tasks import Task

    found = load_study(study)
    wanted = [_run_of(found, name) for name in run]
    given = Path(features) if features else None
    tasks = [
        Task(one, latents, given if one.alignment or one.class_token else None, folder / one.name, code)
        for one in wanted
    ]
    launch(tasks, launcher, load_site(site))


@app.command()
def jobs(results: Annotated[Path, typer.Argument(help="results/<study>")]) -> None:
    """How the training runs of a study stand: state, job, step, last checkpoint, restarts, time to go."""
    from stablevelocity.cluster.overview import overview

    typer.echo(overview(results))


@app.command()
def tensorboard(
    results: Annotated[Path, typer.Argument(help="results/<study>")],
    output: Annotated[Path | None, typer.Option(help="none: results/<study>/tensorboard")] = None,
) -> None:
    """Write the metrics of all runs as TensorBoard event files; run again to refresh."""
    from stablevelocity.tensorboard import write_events

    folder = output or results / "tensorboard"
    typer.echo(f"{folder}: {len(write_events(results, folder))} runs; look with `tensorboard --logdir {folder}`")


@app.command()
def alignment_curve(
    weights: Annotated[Path, typer.Option()],
    latents: Annotated[Path, typer.Option(help="manifest of the latents")],
    features: Annotated[Path, typer.Option(help="manifest of the features")],
    output: Output,
) -> None:
    """Alignment loss against time of a trained run."""
    from stablevelocity.training.alignment_curve import alignment_curve as curve

    _write_tables([curve(weights, latents, features)], [output])


# --- sampling --------------------------------------------------------------------------------------------


@app.command()
def sample(
    study: StudyFile,
    sampler: Annotated[str, typer.Option(help="a name of sampling.samplers")],
    weights: Annotated[Path, typer.Option(help="weights of a run")],
    autoencoder: Annotated[Path, typer.Option(help="description of the autoencoder")],
    output: Output,
    shard: Annotated[int, typer.Option(help="counted from 0")] = 0,
    processes: Annotated[int, typer.Option(help="the images do not depend on it")] = 1,
) -> None:
    """Generate one shard of a set of images, block by block; goes on where it was stopped."""
    from stablevelocity.sampling.jobs import sample_shard

    found = load_study(study)
    sample_shard(weights, autoencoder, _sampler_of(found, sampler), found.sampling, shard, output, processes)


@app.command()
def sample_manifest(
    study: StudyFile,
    sampler: Annotated[str, typer.Option(help="a name of sampling.samplers")],
    weights: Annotated[Path, typer.Option(help="weights of a run")],
    autoencoder: Annotated[Path, typer.Option(help="description of the autoencoder")],
    output: Output,
    shards: Annotated[list[Path], typer.Argument()],
) -> None:
    """Describe the shards of a set of images, and all that they depend on."""
    from stablevelocity.data.sample_manifest import write_sample_manifest

    found = load_study(study)
    write_sample_manifest(weights, autoencoder, _sampler_of(found, sampler), found.sampling, shards, output)


@app.command()
def export_images(
    samples: Annotated[Path, typer.Argument(help="manifest of a set of images")],
    npz: Annotated[Path | None, typer.Option(help="an .npz in ADM's layout (arr_0)")] = None,
    png: Annotated[Path | None, typer.Option(help="a folder of PNG files")] = None,
) -> None:
    """Copy a set of images into the forms that other tools read."""
    from stablevelocity.data.shards import ShardSet
    from stablevelocity.sampling.export import write_npz, write_png_folder

    if npz is None and png is None:
        raise UserError("export-images: neither --npz nor --png given; expected at least one")
    images = ShardSet(samples)
    if npz is not None:
        write_npz(images, npz)
    if png is not None:
        write_png_folder(images, png)


# --- evaluation ------------------------------------------------------------------------------------------

JudgeFile = Annotated[str, typer.Option("--judge", help="description of the judge; empty: Inception")]
ReferenceFile = Annotated[Path, typer.Option("--reference", help="reference made by `reference`")]


@app.command()
def judge(
    study: StudyFile,
    train: Annotated[Path, typer.Option(help="manifest of the train images")],
    heldout: Annotated[Path, typer.Option(help="manifest of the held-out images")],
    output: Output,
) -> None:
    """Train the digit classifier whose features take Inception's place."""
    from stablevelocity.evaluation.jobs import prepare_judge

    prepare_judge(load_study(study).evaluation, train, heldout, output)


@app.command()
def reference(
    study: StudyFile,
    train: Annotated[Path, typer.Option(help="manifest of the train images")],
    output: Output,
    judge: JudgeFile = "",
) -> None:
    """Features and statistics of what generated images are held against."""
    from stablevelocity.evaluation.jobs import write_reference

    write_reference(load_study(study).evaluation, _path(judge), train, output)


@app.command()
def evaluate(
    study: StudyFile,
    run: Annotated[str, typer.Option(help="<arm>-s<seed>")],
    step: Annotated[int, typer.Option()],
    sampler: Annotated[str, typer.Option()],
    samples: Annotated[Path, typer.Option(help="manifest of the set")],
    reference: ReferenceFile,
    output: Output,
    judge: JudgeFile = "",
) -> None:
    """FID, sFID, IS, precision and recall of one set of images of a study."""
    from stablevelocity.evaluation.jobs import score_samples

    found = load_study(study)
    of = _run_of(found, run)
    facts = {"run": run, "arm": of.arm, "seed": of.seed, "step": step, "sampler": sampler}
    score_samples(found.evaluation, _path(judge), reference, samples, output, facts)


@app.command()
def floor(
    study: StudyFile,
    heldout: Annotated[Path, typer.Option(help="manifest of the held-out images")],
    reference: ReferenceFile,
    output: Output,
    judge: JudgeFile = "",
) -> None:
    """The same metrics of real held-out images: what no generator is expected to beat."""
    from stablevelocity.evaluation.jobs import score_floor

    score_floor(load_study(study).evaluation, _path(judge), reference, heldout, output)


@app.command()
def sweep(
    study: StudyFile,
    run: Annotated[str, typer.Option(help="<arm>-s<seed>")],
    weights: Annotated[Path, typer.Option(help="its last weights")],
    autoencoder: Annotated[Path, typer.Option(help="description of the autoencoder")],
    reference: ReferenceFile,
    output: Output,
    judge: JudgeFile = "",
    processes: Annotated[int, typer.Option(help="the numbers do not depend on it")] = 1,
) -> None:
    """Few-step and same-noise study of a run: every solver, StableVS and its control arm."""
    from stablevelocity.evaluation.sweep_job import run_sweep

    run_sweep(load_study(study), run, weights, autoencoder, _path(judge), reference, output, processes)


@app.command()
def score(
    samples: Annotated[Path, typer.Argument(help="manifest of shards, .npz or folder of images")],
    reference: Annotated[Path, typer.Argument(help="likewise; an ADM reference batch brings its statistics")],
    weights: Annotated[Path, typer.Option(help="Inception weights, or the folder of a judge")],
    output: Output,
    extractor: Annotated[str, typer.Option(help="inception or digits")] = "inception",
    features: Annotated[Path | None, typer.Option(help="folder to keep the features in")] = None,
    bootstrap: Annotated[int, typer.Option(min=1)] = 200,
) -> None:
    """Score any set of images against any other, as the ADM evaluation does."""
    from stablevelocity.evaluation.jobs import score_sets

    score_sets(samples, reference, extractor, weights, output, features, bootstrap)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _sampler_of(study: Study, name: str):
    if name not in study.sampling.samplers:
        raise UserError(f"--sampler {name}: no such sampler; there are {', '.join(study.sampling.samplers)}")
    return study.sampler(name)


# --- report ----------------------------------------------------------------------------------------------

Results = Annotated[Path, typer.Option(help="results/<study>")]
Name = Annotated[str, typer.Option(help="as listed in reporting/registry.py")]


@app.command()
def table(study: StudyFile, results: Results, name: Name, output: Output) -> None:
    """Make one table of the report."""
    from stablevelocity.reporting.tables import make_table

    make_table(load_study(study), results, name, output)


@app.command()
def figure(study: StudyFile, results: Results, name: Name, output: Output) -> None:
    """Draw one figure of the report, as PDF and as PNG."""
    from stablevelocity.reporting.figures import make_figure

    make_figure(load_study(study), results, name, output)


@app.command()
def claims(study: StudyFile, results: Results, output: Output) -> None:
    """Judge the paper's claims by the study's numbers."""
    from stablevelocity.reporting.claims import make_claims

    make_claims(load_study(study), results, output)


@app.command()
def report(study: StudyFile, results: Results, output: Output) -> None:
    """Write the report, one page that opens offline."""
    from stablevelocity.reporting.page import make_page

    make_page(load_study(study), results, output)


@app.command()
def summary(results: Annotated[Path, typer.Argument(help="results/<study>")]) -> None:
    """What a finished study found, in ten lines, and where its report is."""
    from stablevelocity.reporting.claims import summary_lines

    for line in summary_lines(results):
        typer.echo(line)
    typer.echo(f"report: {results / 'report.html'}")


@app.command()
def compare(
    results: Annotated[Path, typer.Argument(help="a new results/<study>")],
    reference: Annotated[Path, typer.Argument(help="the one to compare with, such as results/reference/digits")],
) -> None:
    """Compare two results of a study, cell by cell; exit status 1 when they differ beyond the seeds' spread."""
    from stablevelocity.reporting.compare import compare as compare_results

    comparison = compare_results(results, reference)
    typer.echo(str(comparison))
    sys.exit(0 if comparison.agrees else 1)


@app.command()
def keep(
    results: Annotated[Path, typer.Argument(help="a finished results/<study>")],
    output: Annotated[Path, typer.Argument(help="where its copy goes, such as results/reference/digits")],
) -> None:
    """Copy tables, figures, claims and report of a finished study, with its provenance, under 4 MB."""
    from stablevelocity.reporting.reference import make_reference

    make_reference(results, output)


pretrained_verbs.register(app)


def _run_of(study: Study, name: str):
    runs = study.runs()
    if name not in runs:
        raise UserError(f"--run {name}: no such run in study {study.name!r}; there are {', '.join(runs)}")
    return runs[name]


def _write_tables(tables, outputs) -> None:
    from stablevelocity.files import atomic_write

    for table, output in zip(tables, outputs, strict=True):
        with atomic_write(output) as temporary:
            table.to_csv(temporary, index=False)


if __name__ == "__main__":
    main()
