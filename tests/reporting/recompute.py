"""Every verdict of a claims.json from the tables beside it, by numpy and scipy alone: nothing of the package is used.

It shares no formula with the package where another gives the same number: differences between arms by least squares
on dummies, bootstrap by scipy, Holm by its definition.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

LOWER_FID = (
    "stablevm",
    "stablevm-unlabelled",
    "stablevm-stf",
    "repa",
    "repa-low",
    "repa-stable",
    "irepa-stable",
    "reg-stable",
    "repa-stable-gain",
    "guided",
)
BOUND = 0.05


class Sample:
    """One-sided p-values of a mean: of independent values by Student's t, of clusters by their bootstrap."""

    def __init__(self, values, clusters=None):
        self.values = np.asarray(values, float)
        self.means = None
        if clusters is not None:
            self.values = pd.Series(self.values).groupby(np.asarray(clusters)).mean().to_numpy()
            drawn = stats.bootstrap(
                (self.values,), np.mean, n_resamples=10_000, method="percentile", batch=500, random_state=7
            )
            self.means = drawn.bootstrap_distribution

    def p(self, way: str, bound: float) -> float:
        sign = 1 if way == "below" else -1
        if self.means is not None:
            return (1 + (sign * (self.means - bound) >= 0).sum()) / 10_001
        if len(self.values) < 2:
            return math.nan
        if np.ptp(self.values) == 0:
            return 0.0 if sign * (self.values[0] - bound) < 0 else 1.0
        alternative = "less" if way == "below" else "greater"
        return stats.ttest_1samp(self.values, bound, alternative=alternative).pvalue


class Regression(Sample):
    """Of the coefficient of an arm against another, all arms and seeds in one fit."""

    def __init__(self, frame: pd.DataFrame, arm: str, against: str):
        wide = frame.pivot_table(index="arm", columns="seed", values="value")
        wide = wide[wide.columns[wide.loc[[arm, against]].notna().all()]].dropna()
        arms, seeds = list(wide.index), list(wide.columns)
        cells = [(a, s) for a in arms for s in seeds]
        others = [a for a in arms if a != against]
        design = [[1.0] + [a == o for o in others] + [s == t for t in seeds[1:]] for a, s in cells]
        design, y = np.array(design, float), np.array([wide.loc[cell] for cell in cells])
        coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
        self.freedom = len(y) - design.shape[1]
        self.estimate = coefficients[1 + others.index(arm)]
        self.error = math.nan
        if len(seeds) > 1:
            noise = ((y - design @ coefficients) ** 2).sum() / self.freedom
            self.error = math.sqrt(
                noise * np.linalg.inv(design.T @ design)[1 + others.index(arm)][1 + others.index(arm)]
            )

    def p(self, way: str, bound: float) -> float:
        if math.isnan(self.error):
            return math.nan
        t = (self.estimate - bound) / self.error
        return stats.t.cdf(t, self.freedom) if way == "below" else stats.t.sf(t, self.freedom)


class Normal(Sample):
    def __init__(self, mean: float, error: float):
        self.mean, self.error = mean, error

    def p(self, way: str, bound: float) -> float:
        z = (self.mean - bound) / self.error
        return stats.norm.cdf(z) if way == "below" else stats.norm.sf(z)


def decide(samples: list[Sample], side: str, bound: float = 0.0, margin: float = 0.0) -> tuple[str, float]:
    """(verdict, two-sided p or, where equivalent, that of two one-sided tests)."""
    other = {"below": "above", "above": "below"}[side]
    if margin:
        p = max(max(one.p("below", bound + margin), one.p("above", bound - margin)) for one in samples)
        if p < BOUND:
            return "equivalent", p
    p_for, p_against = (np.max([one.p(way, bound) for one in samples]) for way in (side, other))
    if math.isnan(p_for) or math.isnan(p_against):
        return "open", math.nan
    p = min(1.0, 2 * min(p_for, p_against))
    if p >= BOUND:
        return "open", p
    return ("supported" if p_for < p_against else "contradicted"), p


def fact(holds) -> tuple[str, float]:
    return ("supported" if holds else "contradicted"), math.nan


CHECK, UNTESTED = ("check of the implementation", math.nan), ("not tested at this scale", math.nan)


def variance(table: pd.DataFrame) -> dict:
    table = table.sort_values("dimension")
    points, exact, noise = (table[table["law"] == law].set_index("source") for law in ("empirical", "exact", "noise"))
    mixtures, data = [points[points.index.str.startswith("gmm") == is_gmm] for is_gmm in (True, False)]
    found = {}
    if len(data):
        regimes = (data["split_low"] > 0).all()
        known = all(name in noise.index and noise.loc[name, "split_low"] == 0 for name in data.index)
        found["two-regimes"] = fact(regimes) if known or not regimes else CHECK
    if "latents" in exact.index:
        found["two-regimes-trained-on"] = fact(exact.loc["latents", "split_low"] > 0)
    if len(mixtures) > 1:
        error = (mixtures["split_high"] - mixtures["split_low"]).to_numpy() / (2 * stats.norm.ppf(0.975))
        steps = np.diff(mixtures["split_point"])
        gaps = [Normal(step, math.hypot(*error[k : k + 2])) for k, step in enumerate(steps)]
        found["split-moves-with-dimension"] = decide(gaps, "above")
    read = points[points["published_rise"].notna()]
    if len(read):
        met = {"rise": (read["rise"] - read["published_rise"]).abs().max() <= 0.015}
        met["peak"] = (read["peak_scaled"] / read["published_peak"] - 1).abs().max() <= 0.03
        few = read["samples"].min() < 10_000
        found |= {f"figure1-{what}": UNTESTED if few and not holds else fact(holds) for what, holds in met.items()}
    both = [name for name in points.index if name in exact.index and name.startswith("gmm")]
    if both:
        name = "gmm-100" if "gmm-100" in both else both[-1]
        share = points.loc[name, "variance_at_0_2"] / exact.loc[name, "variance_at_0_2"]
        found["low-variance-of-the-law"] = fact(share > 0.5)
    return found


def toy(table: pd.DataFrame) -> dict:
    found = {}
    error = table[table["measure"] == "error"].set_index(["objective", "t", "seed"])["value"]
    objectives = set(table["objective"])
    times = sorted(set(table.loc[table["measure"] == "error", "t"]))
    relative = {
        a: [(error["stablevm"][t] / error[a][t] - 1).dropna() for t in times] for a in {"cfm", "stf"} & objectives
    }
    for t, values in zip(times, relative.get("cfm", []), strict=False):
        found[f"toy-error-cfm-{t:g}"] = decide([Sample(values)], "below")
    if "stf" in relative:
        found["toy-error-stf"] = decide([Sample(values) for values in relative["stf"]], "below", margin=0.02)
    for measure in ("target", "gradient"):
        rows = table[(table["measure"] == measure) & (table["objective"] == "stablevm")].sort_values("t")
        ratios = []
        for _, one in rows.groupby("seed"):
            width = np.diff(one["t"])
            areas = [((one[c].to_numpy()[1:] + one[c].to_numpy()[:-1]) / 2 * width).sum() for c in ("value", "cfm")]
            ratios.append(areas[0] / areas[1])
        found[f"toy-{measure}-variance"] = decide([Sample(ratios)], "below", 1.0)
    return found


def training(claims: dict, runs: pd.DataFrame, names: pd.DataFrame, alignment: pd.DataFrame | None) -> dict:
    """`names`: which arms a comparison is of, and where; no number of that table is used."""
    found = {}
    for name in (*LOWER_FID, "repa-high"):
        if name not in claims:
            continue
        how = claims[name]["how"]
        arm, against = how["runs"].split(", ")
        comparison = names[(names["arm"] == arm) & (names["against"] == against)]["comparison"].iloc[0]
        assert comparison == name or (name == "guided" and comparison.startswith("repa-stable"))
        sampler = how["sampler"].split(":")[0]
        rows = runs[(runs["sampler"] == sampler) & (runs["metric"] == "fid") & (runs["step"] == how["training steps"])]
        side, margin = "above" if name == "repa-high" else "below", 0.1 * rows[rows["arm"] == against]["value"].mean()
        found[name] = decide([Regression(rows, arm, against)], side)
        if found[name][0] == "open":
            found[name] = decide([Regression(rows, arm, against)], side, margin=margin)
    if "held-out" in claims:
        how = claims["held-out"]["how"]
        rows = runs[(runs["sampler"] == how["sampler"].split(":")[0]) & (runs["metric"] == "fid_heldout")]
        rows = rows[rows["step"] == how["training steps"]]
        found["held-out"] = decide([Regression(rows, *how["runs"].split(", "))], "below")
    if alignment is not None and "alignment-loss" in claims:
        rows = alignment[alignment["run"].isin(claims["alignment-loss"]["how"]["runs"].split(", "))]
        gain = rows.assign(gain=rows["label_only"] - rows["mean"])
        high, low = (gain[part].groupby("seed")["gain"].mean() for part in (gain["t"] >= 0.7, gain["t"] < 0.7))
        found["alignment-loss"] = decide([Sample(high / low)], "below", 0.5) if (low > 0).all() else UNTESTED
    return found


class Ratio(Sample):
    """Of two means over the same batches, by the linearised ratio's residuals."""

    def __init__(self, above: np.ndarray, below: np.ndarray):
        self.ratio, self.freedom = above.mean() / below.mean(), len(above) - 1
        self.error = (above - self.ratio * below).std(ddof=1) / below.mean() / math.sqrt(len(above))

    def p(self, way: str, bound: float) -> float:
        t = (self.ratio - bound) / self.error
        return stats.t.cdf(t, self.freedom) if way == "below" else stats.t.sf(t, self.freedom)


def gradients(rows: pd.DataFrame) -> dict:
    ratios = []
    for _, part in rows.groupby(["run", "step"]):
        wide = part.pivot(index="batch", columns="objective", values="squared_deviation")
        ratios.append(Ratio(wide["stablevm"].to_numpy(), wide["cfm"].to_numpy()))
    return {"gradient-variance": decide(ratios, "below", 1.0)}


def sampling(claims: dict, rows: pd.DataFrame, images: pd.DataFrame, few: pd.DataFrame) -> dict:
    found = {}
    for name in [name for name in claims if name in ("stablevs-paper-xi", "stablevs-own-xi")]:
        how = claims[name]["how"]
        part = images[(images["solver"] == how["solver"]) & (images["xi"] == float(how["xi"]))]
        part = part[part["low_steps"] == part.loc[part["psnr_over_base"].notna(), "low_steps"].max()]
        found[name] = decide([Sample(part["psnr_over_base"], part["image"])], "above")
    for name in [name for name in claims if name.startswith("stablevs-step-")]:
        solver = name.removeprefix("stablevs-step-").replace("-", "_")
        part = images[images["solver"] == solver]
        equal = rows.loc[rows["solver"] == solver, "psnr_step"].abs().max() < 0.01
        controls = few[(few["solver"] == solver) & (few["low_regime"] == "control")]
        if "drawn_as" in few and set(controls["drawn_as"]) == {"stablevs"}:
            found[name] = UNTESTED
            continue
        found[name] = CHECK if equal else decide([Sample(part["psnr_over_control"], part["image"])], "above")
    if "stablevs-fid" in claims:
        how = claims["stablevs-fid"]["how"]
        part = rows[(rows["solver"] == how["solver"]) & (rows["xi"] == float(how["xi"])) & rows["fid_base"].notna()]
        part = part[part["low_steps"] == part["low_steps"].max()].set_index("run")
        long = few[(few["solver"] == how["solver"]) & (few["low_regime"] == "none")]
        long = long[long["steps"] == long["reference_steps"]].set_index("run")["fid"]
        helps = (part["fid_base"] > long[part.index]).all()
        found["stablevs-fid"] = (
            decide([Sample(part["fid_stablevs"] / part["fid_base"] - 1)], "below", 0.05) if helps else UNTESTED
        )
    return found


def exact_flow(claims: dict, runs: pd.DataFrame) -> dict:
    """Claims exact-flow-<exponent>-<dimension>, and exact-flow-step-<solver> of the last spectrum and dimension."""
    found = {}
    names = {"solver": "solver", "xi": "xi", "low-regime steps": "low_steps", "spread within modes": "spread"}
    for name in [name for name in claims if name.startswith("exact-flow-")]:
        rows, (kind, last) = runs, name.removeprefix("exact-flow-").rsplit("-", 1)
        for key, column in [*names.items(), ("guidance", "guidance")]:
            rows = rows[rows[column] == claims[name]["how"][key]]
        if kind == "step":
            assert claims[name]["how"]["solver"] == last
            rows = rows[(rows["exponent"] == runs["exponent"].max()) & (rows["dimension"] == runs["dimension"].max())]
            found[name] = decide([Sample(rows["step_gain"])], "above")
        else:
            rows = rows[(rows["exponent"] == float(kind)) & (rows["dimension"] == int(last))]
            found[name] = decide([Sample(rows["gain"])], "above")
    return found


def pretrained(claims: dict, pairs: pd.DataFrame) -> dict:
    kinds = {"short": ("short", "psnr", "above"), "ssim": ("short", "ssim", "above")}
    kinds |= {"flips": ("short", "flips", "below"), "score": ("long", "score", "above")}
    kinds |= {"control": ("control", "psnr", "above")}
    found = {}
    for name, claim in claims.items():
        against, measure, side = kinds[name.rsplit("-", 1)[1]]
        how = claim["how"]
        part = pairs[(pairs["family"] == how["family"]) & (pairs["arm"] == f"{how['solver']}-stablevs")]
        part = part[(part["against"] == against) & part[measure].notna()]
        equal = against == "control" and (part[measure] == 0).all()
        margin = 0.02 if measure == "score" else 0.0
        found[name] = CHECK if equal else decide([Sample(part[measure], part["prompt"])], side, margin=margin)
    return found


def recompute(folder: Path, claims: dict) -> dict[str, tuple[str, float]]:
    """(verdict, p) of each claim of `claims` (by id), from `folder`/tables."""

    def table(name: str) -> pd.DataFrame | None:
        file = folder / "tables" / f"{name}.csv"
        return pd.read_csv(file) if file.exists() else None

    if (pairs := table("pretrained_pairs")) is not None:
        return pretrained(claims, pairs)
    found = variance(table("variance"))
    if (rows := table("toy_runs")) is not None:
        found |= toy(rows)
    if (rows := table("exact_flow_runs")) is not None:
        found |= exact_flow(claims, rows)
    if files := sorted((folder / "metrics/gradient_variance").glob("*.csv")):
        found |= gradients(pd.concat([pd.read_csv(file).assign(run=file.stem) for file in files]))
    found |= training(claims, table("runs"), table("differences"), table("alignment"))
    return found | sampling(claims, table("stablevs"), table("stablevs_images"), table("few_step"))


def corrected(p_values: dict[str, float]) -> dict[str, float]:
    """Holm: the k-th smallest of n is compared with 5 %/(n - k + 1), and none passes after one that fails."""
    left = {name: p for name, p in p_values.items() if p is not None and not math.isnan(p)}
    adjusted, largest = {}, 0.0
    while left:
        name = min(left, key=lambda one: left[one])
        largest = max(largest, min(1.0, left[name] * len(left)))
        adjusted[name] = largest
        del left[name]
    return adjusted


def disagreements(folder: Path) -> list[str]:
    """Of claims.json in `folder` with what `recompute` finds: one line for each claim that differs."""
    claims = {claim["id"]: claim for claim in json.loads((folder / "claims.json").read_text())}
    found = recompute(folder, claims)
    lines = [f"{name}: not in both" for name in found.keys() ^ claims.keys()]
    for name in found.keys() & claims.keys():
        (verdict, p), claim = found[name], claims[name]
        told = math.nan if claim["p"] is None else claim["p"]
        # Two bootstraps of 10,000 agree to their Monte Carlo error: 4 binomial standard deviations.
        near = 4 * math.sqrt(max(p, 1e-4) / 10_000) + 1e-5 if "bootstrap" in claim["rule"] else 1e-3 * p + 1e-12
        if claim["verdict"] != verdict or not (abs(told - p) <= near or (math.isnan(told) and math.isnan(p))):
            lines.append(f"{name}: {claim['verdict']} (p {told:.3g}), recomputed {verdict} (p {p:.3g})")
    by_holm = corrected({name: claim["p"] for name, claim in claims.items()})
    for name, p in by_holm.items():
        if not math.isclose(p, claims[name]["p_corrected"], rel_tol=1e-9):
            lines.append(f"{name}: corrected p {claims[name]['p_corrected']:.3g}, recomputed {p:.3g}")
        if claims[name]["corrected"] != (claims[name]["verdict"] if p < BOUND else "open"):
            lines.append(f"{name}: corrected verdict {claims[name]['corrected']}")
    return sorted(lines)
