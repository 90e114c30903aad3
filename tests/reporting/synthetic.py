"""A results folder with invented numbers of realistic size, for tests of the report only.

Every file has columns that the workflow's stages write; tests/workflow compares them with those of a real study.
`EFFECTS` are the true FID ratios of the arms to CFM, so a test knows what the tables must show.
"""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.files import write_json
from stablevelocity.provenance import write_provenance
from stablevelocity.reporting import registry
from stablevelocity.study import Study, parse_study, study_json
from stablevelocity.study.layout import Layout

LAYOUT = Layout()
PUBLISHED = Path(__file__).parents[2] / "config" / "published"
EFFECTS = {"cfm": 1.0, "repa": 0.97, "repa-low": 0.96, "repa-high": 1.17, "stablevm": 0.77, "stablevm-va": 0.74}
SPREAD = 0.02
"""Standard deviation of FID over seeds, relative; the part shared by all arms of a seed is twice as large."""


def digits(seeds: list[int] | None = None) -> Study:
    """A study like the default one: six arms, three samplers, the toy."""
    stablevm = {"objective": "stablevm", "stablevm": {"t_min": 0.0, "bank": {"capacity": 128}}}
    three = ["cfm", "stablevm", "stablevm-va"]
    sde = {"solver": "euler_maruyama", "steps": 50}
    return parse_study(
        {
            "name": "digits",
            "encoder": {"grid": 4},
            "variance": {"gmm_samples": 5000, "gmm_times": 25},
            "toy": {"updates": 3000, "references": 512, "batch": 128},
            "exact_flow": {"dimensions": [16, 256], "exponents": [0, 1], "spreads": [0.1, 0.3]},
            "training": {"seeds": seeds or [0, 1], "steps": 1500, "milestones": [500], "batch": 64},
            "arms": {
                "cfm": {"label": "CFM"},
                "repa": {"label": "REPA", "alignment": {"schedule": "uniform"}},
                "repa-low": {"label": "REPA, t < 0.7", "alignment": {"schedule": "hard"}},
                "repa-high": {"label": "REPA, t >= 0.7", "alignment": {"schedule": "hard_high"}},
                "stablevm": {"label": "StableVM", **stablevm},
                "stablevm-va": {"label": "StableVM + VA-REPA", "alignment": {"schedule": "sigmoid"}, **stablevm},
            },
            "sampling": {
                "images": 1024,
                "main": "ode",
                "samplers": {
                    "ode": {"solver": "euler", "steps": 30},
                    "sde": sde,
                    "sde-guided": {**sde, "guidance": 1.8, "guidance_interval": [0.0, 0.7]},
                },
                "arms": {"sde": three, "sde-guided": three},
                "sweep": {
                    "images": 128,
                    "arms": ["cfm", "stablevm-va"],
                    "thinned": ["euler", "heun", "euler_maruyama"],
                },
            },
        }
    )


def minimal() -> Study:
    """One arm, one seed, one sampler, no toy, no mixtures: the least a study can be."""
    return parse_study(
        {
            "name": "minimal",
            "variance": {"gmm_dimensions": [], "data": ["latents"]},
            "toy": None,
            "training": {"seeds": [3], "steps": 100, "model": {"depth": 2}},
            "arms": {"cfm": {"label": "CFM"}},
            "sampling": {
                "images": 64,
                "samplers": {"ode": {"steps": 4}},
                "main": "ode",
                "sweep": {"solvers": ["euler"], "steps": [4, 8], "xi": [0.6], "low_steps": [3]},
            },
        }
    )


def make(study: Study, results: Path, seed: int = 0) -> Path:
    """Write all that the report reads of `study` into `results`."""
    rng = np.random.default_rng(seed)
    results.mkdir(parents=True, exist_ok=True)
    (results / "study.json").write_text(study_json(study))
    _data(study, results)
    _variance(study, results, rng)
    if study.toy:
        _toy(study, results, rng)
    if study.exact_flow:
        _exact_flow(study, results, rng)
    _runs(study, results, rng)
    _fidelity(study, results, rng)
    _sweep(study, results, rng)
    return results


def _csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def bars(labels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Noisy images with a bright bar that stands where the label says."""
    images = 40 * rng.integers(0, 2, (len(labels), 16, 16, 3), dtype=np.uint8)
    images[np.arange(len(labels)), 3:13, 3 + labels] = 230
    return {"images": images, "labels": labels}


def _data(study: Study, results: Path) -> None:
    for split, count in (("train", 1437), ("heldout", 360)):
        names = [str(digit) for digit in range(10)]
        labels = np.array_split(np.arange(count) * 3 % 10, study.images.shards)
        shards = [results / LAYOUT.image_shard(split, shard) for shard in range(len(labels))]
        for shard, part in zip(shards, labels, strict=True):
            write_shard(shard, bars(part, np.random.default_rng(count)))
        write_manifest(results / LAYOUT.image_manifest(split), shards, num_classes=10, class_names=names)
    arrays = {"mean": {"dtype": "float16", "shape": [4, 8, 8]}, "labels": {"dtype": "int64", "shape": []}}
    write_json(results / LAYOUT.latents, {"count": 1437, "scale": 0.9, "identity": "ab12", "arrays": arrays})
    facts = {"psnr_held_out": 36.1, "psnr_train": 36.4, "identity": "ab12", "scale": 0.9, "parameters": 41_000}
    write_json(results / LAYOUT.autoencoder, facts)
    encoder = {"name": "digits-vit", "held_out_accuracy": 0.968, "tokens": 16, "width": 64}
    write_json(results / LAYOUT.encoder, encoder)
    write_json(results / LAYOUT.classifier, {"held_out_accuracy": 0.983})
    real = {"fid": 0.05, "is": 9.4, "precision": 0.81, "recall": 0.82, "accuracy": 0.983}
    rows = [
        {"metric": name, "value": value, "low": 0.9 * value, "high": 1.1 * value, "images": 360}
        | {"extractor": "digits", "reference": "train split", "note": ""}
        for name, value in real.items()
    ]
    halves = {"metric": "fid_halves", "value": 0.8, "low": 0.5, "high": 1.3, "images": 718, "extractor": "digits"}
    rows.append({**halves, "reference": "the other 718", "note": "ten splits"})
    _csv(results / LAYOUT.real_baseline, rows)


def _variance(study: Study, results: Path, rng: np.random.Generator) -> None:
    curves, splits, references = [], [], []
    sources = [(f"gmm-{d}", d) for d in study.variance.gmm_dimensions]
    sources += [(name, {"pixels": 768, "latents": 256}[name]) for name in study.variance.data]
    for name, d in sources:
        turn = 1 - 1.9 / math.log(10 * d) if name.startswith("gmm") else 0.52
        exact = ["exact"] * (name != "pixels")
        for law in ("empirical", *exact, *(["noise"] * (not name.startswith("gmm")))):
            for t in np.linspace(0.01, 0.99, 25):
                height = 5 * math.sqrt(d) * 1.3 * d**0.2
                low = 0.0 if law != "exact" else 0.4 * math.sqrt(d) / (t + 0.3)
                mean = low + height / (1 + math.exp(-(t - turn - 0.15) / 0.025)) * (1 - 0.3 * max(0, t - turn))
                row = {"source": name, "dimension": d, "law": law, "samples": 5000, "t": t, "mean": mean}
                curves.append(row | {"q15": 0.5 * mean, "q85": 1.5 * mean})
                if law == "empirical" and name == "gmm-100":
                    for count in study.variance.reference_counts:
                        share = 1 / (1 + math.exp(-(t - 0.9 + 0.1 * math.log10(count)) / 0.05))
                        true = mean + 0.4 * math.sqrt(d) / (t + 0.3)
                        references.append(_reference(name, d, "empirical", count, t, true * share))
            if law == "exact" and name == "gmm-100":
                for row in [row for row in curves if row["source"] == name and row["law"] == "exact"]:
                    references.append(_reference(name, d, "exact", None, row["t"], row["mean"]))
            xi = {"empirical": turn + 0.04, "noise": turn + 0.2, "exact": 0.0}[law]
            splits.append(
                {"source": name, "dimension": d, "law": law, "xi": xi, "low": max(0, xi - 0.01), "high": xi + 0.012}
            )
    _csv(results / LAYOUT.variance_curves, curves)
    _csv(results / LAYOUT.split_points, splits)
    if study.variance.gmm_dimensions:
        _csv(results / LAYOUT.variance_references, references)


def _reference(name: str, d: int, law: str, count: int | None, t: float, mean: float) -> dict:
    return {"source": name, "dimension": d, "law": law, "references": count, "t": t, "mean": mean}


def _exact_flow(study: Study, results: Path, rng: np.random.Generator) -> None:
    """StableVS gains 2 dB at k^-1 and loses 3 at white, its control arm with DPM-Solver++ gains 4 dB more."""
    flow = study.exact_flow
    assert flow is not None
    rows = []
    for d, exponent, spread, guidance in itertools.product(
        flow.dimensions, flow.exponents, flow.spreads, flow.guidance
    ):
        settings = [(flow.solvers[0], flow.xi[0], flow.low_steps[0])]
        if spread == flow.spreads[0] and guidance == flow.guidance[0]:
            settings += [(solver, flow.xi[0], flow.low_steps[0]) for solver in flow.solvers[1:]]
            settings += [(flow.solvers[0], xi, flow.low_steps[0]) for xi in flow.xi[1:]]
        for seed, (solver, xi, low_steps) in itertools.product(flow.seeds, settings):
            base, gain = rng.normal(50, 2), (2 if exponent else -3) + rng.normal(0, 0.3)
            values = {"long": math.nan, "base": base, "stablevs": base + gain, "control": base + gain}
            values["control"] += 0 if solver == flow.solvers[0] else 4
            for arm, psnr in values.items():
                mixture = {"dimension": d, "exponent": exponent, "spread": spread, "guidance": guidance}
                rows.append(mixture | {"seed": seed, "solver": solver, "xi": xi, "low_steps": low_steps, "arm": arm})
                rows[-1] |= {"calls": 30 if arm == "long" else 20, "psnr_long": psnr, "flips_long": 0.0}
                rows[-1] |= {"psnr_truth": 45 + 0.3 * (psnr if psnr == psnr else 60), "flips_truth": 0.03}
    _csv(results / LAYOUT.exact_flow, rows)
    axes = range(1, 257)
    spectrum = [{"axis": k, "deviation": 5 * k**-1.5, "samples": 1437, "exponent": 1.5} for k in axes]
    _csv(results / LAYOUT.latent_spectrum, spectrum)


def _toy(study: Study, results: Path, rng: np.random.Generator) -> None:
    toy = study.toy
    assert toy is not None
    gain = {"cfm": 1.0, "stf": 0.83, "stablevm": 0.82}
    error, target, gradient, cost = [], [], [], []
    for objective in toy.objectives:
        for seed in toy.seeds:
            shared = np.random.default_rng(seed).normal(0, 0.02)
            factor = gain[objective] * math.exp(shared + rng.normal(0, 0.01))
            for update in range(toy.evaluate_every, toy.updates + 1, toy.evaluate_every):
                for t in toy.times:
                    value = factor * (2.0 + 8 * math.exp(-update / 900)) * (1.2 - t)
                    error.append({"objective": objective, "seed": seed, "update": update, "t": t, "error": value})
            for t in np.linspace(0.05, 0.95, 10):
                noise = {"cfm": 1.0}.get(objective, 0.02 + 0.3 * math.exp(-6 * t))
                value = noise * 1e-3 * (1 + 4 * t) * math.exp(rng.normal(0, 0.05))
                gradient.append({"objective": objective, "seed": seed, "t": t, "variance": value})
            for t in np.linspace(0.05, 0.95, 10):
                noise = {"cfm": 1.0}.get(objective, 0.001) * math.exp(rng.normal(0, 0.02))
                row = {"objective": objective, "seed": seed, "t": t, "variance": noise * 14 * t**2}
                target.append(row | {"removed": 0.0 if objective == "cfm" else 13 * t**2})
    for count in (0, 32, 128, 512, 2048):
        row = {"references": count, "seconds_drawing": 2e-4 + count * 5e-8, "seconds_target": 1e-4 + count * 2e-7}
        row |= {"seconds_update": 1.5e-3}
        cost.append(row | {"seconds": sum(row.values()) - count})
    _csv(results / LAYOUT.toy("error"), error)
    _csv(results / LAYOUT.toy("target_variance"), target)
    _csv(results / LAYOUT.toy("gradient_variance"), gradient)
    _csv(results / LAYOUT.toy("cost"), cost)


def _runs(study: Study, results: Path, rng: np.random.Generator) -> None:
    for run in study.runs().values():
        rows = []
        steps = run.training.steps
        for step in np.linspace(0, steps, 61, dtype=int)[1:]:
            share = step / steps
            row = {"step": step, "loss": 0.5 + math.exp(-5 * share)}
            row |= {"velocity_low": 0.25 + math.exp(-6 * share) + rng.normal(0, 0.01)}
            row |= {"velocity_high": 0.9 + 0.6 * math.exp(-4 * share) + rng.normal(0, 0.02)}
            if run.alignment:
                row |= {"alignment_low": -0.8 + 0.6 * math.exp(-5 * share), "alignment_high": -0.45}
            rows.append(row | {"grad_norm": 0.3, "removed_variance": 0.1, "images_per_s": 1400.0, "memory_mb": 600.0})
        _csv(results / LAYOUT.training_metrics(run.name), rows)
        if run.alignment:
            rows = []
            for t in np.linspace(0.025, 0.975, 20):
                mean = -0.85 + 0.5 / (1 + math.exp(-(t - 0.72) / 0.07)) + 0.01 * rng.normal()
                row = {"step": steps, "t": t, "mean": mean, "q15": mean - 0.07, "q85": mean + 0.07}
                rows.append(row | {"label_only": -0.4, "noise_only": -0.2})
            _csv(results / LAYOUT.alignment_curve(run.name), rows)


def _fidelity(study: Study, results: Path, rng: np.random.Generator) -> None:
    runs = study.runs()
    for name, step, sampler in study.sample_sets():
        run = runs[name]
        shared = np.random.default_rng(1000 + run.seed).normal(0, 2 * SPREAD)
        ratio = EFFECTS.get(run.arm, 1.0) * math.exp(shared + rng.normal(0, SPREAD))
        fid = 1.1 * ratio * (run.training.steps / step) ** 0.8 * {"sde": 0.9, "sde-guided": 0.6}.get(sampler, 1.0)
        values = {"fid": fid, "is": 9.2 - fid / 4, "precision": 0.80 - fid / 30, "recall": 0.75 - fid / 20}
        values |= {"accuracy": 0.96 - fid / 40, "fid_infinity": fid - 0.03}
        values |= {"fid_heldout": fid + 0.4, "nearest_ratio": 0.99 + rng.normal(0, 0.003)}
        rows = []
        for metric, value in values.items():
            row = {"run": name, "arm": run.arm, "seed": run.seed, "step": step, "sampler": sampler}
            row |= {"extractor": "digits", "images": study.sampling.images, "reference": "train split"}
            rows.append(row | {"metric": metric, "value": value, "low": 0.95 * value, "high": 1.05 * value})
        _csv(results / LAYOUT.fidelity(name, step, sampler), rows)
        shard = results / LAYOUT.sample_shard(name, step, sampler, 0)
        write_shard(shard, bars(np.arange(min(study.sampling.images, 256)) * 7 % 10, rng))


def _sweep(study: Study, results: Path, rng: np.random.Generator) -> None:
    sweep = study.sampling.sweep
    for name in study.sweep_runs():
        arm = study.runs()[name].arm
        shift = rng.normal(0, 0.1)
        rows = []
        for solver in sweep.solvers:
            best = {"euler": 0.0, "heun": 3.0, "euler_maruyama": -12.0}[solver]
            for steps in sorted({*sweep.steps, sweep.base_steps}):
                nfe = 2 * steps - 1 if solver == "heun" else steps
                psnr = math.inf if steps == sweep.base_steps else 30 + 21 * steps / sweep.base_steps + best
                fid = EFFECTS.get(arm, 1.0) * (0.72 + 0.01 * steps) * (3 if solver == "euler_maruyama" else 1)
                rows.append(_swept(name, arm, solver, "none", steps, nfe, None, None, psnr, fid, study))
            for xi in sweep.xi if solver in sweep.thinned else []:
                for low in sweep.low_steps:
                    steps = round(sweep.base_steps * (1 - xi)) + low
                    psnr = 52 + best - 14 * max(0, xi - 0.55) / 0.35 - 30 / low / 3 + shift
                    for regime in ("stablevs", "control"):
                        # On the linear path both are the Euler step; other solvers differ.
                        off = 0.0 if solver == "euler" or regime == "stablevs" else 1.2
                        nfe = steps + (round(sweep.base_steps * (1 - xi)) - 1 if solver == "heun" else 0)
                        nfe += low - 1 if solver == "heun" and regime == "control" else 0  # two calls in each step
                        fid = EFFECTS.get(arm, 1.0) * (0.78 + 0.02 * xi) * (3 if solver == "euler_maruyama" else 1)
                        rows.append(
                            _swept(name, arm, solver, regime, steps, nfe, xi, low, psnr + off + shift, fid, study)
                        )
        _csv(results / LAYOUT.sweep(name), rows)
        _csv(results / LAYOUT.sweep_images(name), _by_image(rows, rng))


def _by_image(rows: list[dict], rng: np.random.Generator) -> list[dict]:
    """Images differ among each other by 4 dB and by 0.5 dB from sampler to sampler; their mean is the row's."""
    count = rows[0]["images"]
    shared = np.random.default_rng(5).normal(0, 4, count)
    kept = ("run", "solver", "low_regime", "steps", "nfe", "xi", "low_steps")
    images = []
    for row in rows:
        own = shared + (0.0 if row["solver"] == "euler" and row["low_regime"] != "none" else rng.normal(0, 0.5, count))
        psnr = row["psnr"] + own - own.mean()
        which = {name: row[name] for name in kept}
        images += [which | {"image": i, "psnr": p, "ssim": 1 - math.exp(-p / 10)} for i, p in enumerate(psnr)]
    return images


def _swept(run, arm, solver, regime, steps, nfe, xi, low, psnr, fid, study) -> dict:
    row = {"run": run, "arm": arm, "solver": solver, "low_regime": regime, "steps": steps, "nfe": nfe, "xi": xi}
    row |= {"low_steps": low, "images": study.sampling.sweep.images, "reference_steps": study.sampling.sweep.base_steps}
    main, stochastic = study.sampler(study.sampling.main), solver == "euler_maruyama"
    row |= {"diffusion": main.diffusion if stochastic else None, "last_time": main.last_time if stochastic else None}
    row |= {"guidance": main.guidance, "guidance_low": main.guidance_interval[0]}
    row |= {"guidance_high": main.guidance_interval[1], "labels": main.labels}
    return row | {"psnr": psnr, "ssim": 1 - math.exp(-psnr / 10), "feature_distance": 60 / psnr, "fid": fid}


def leave_records(study: Study, results: Path) -> None:
    """Beside each table, and the metrics, images and networks behind it, the record that its job would leave."""

    def record(outputs: list[str], inputs: list[str], verb: str, settings: str = "") -> None:
        command = ["/opt/bin/stablevelocity", "--log", "logs/x.log", "--code", "a.b", verb, "--output", outputs[0]]
        # As the workflow gives them, relative to where it runs.
        made, read = ([Path(os.path.relpath(results / name)) for name in names] for names in (outputs, inputs))
        write_provenance(made, inputs=read, settings=settings, code=verb[:4] * 3, command=command)

    for name, product in registry.tables(study).items():
        record([LAYOUT.table(name)], product.inputs(study), "table", study_json(study))
    for run, step, sampler in study.sample_sets():
        images, weights = LAYOUT.sample_shard(run, step, sampler, 0), LAYOUT.training_metrics(run)
        record([LAYOUT.fidelity(run, step, sampler)], [images], "evaluate")
        record([images], [weights], "sample", f'["{sampler}"]')
        record([weights], [LAYOUT.latents], "train", f'["{run}"]')
    record([LAYOUT.latents], [LAYOUT.image_manifest("train")], "latent-manifest")
