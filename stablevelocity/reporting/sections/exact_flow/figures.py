"""Where StableVS wins on exact velocities, and where the study's own data lie."""

from typing import Any

from matplotlib.figure import Figure

from stablevelocity.reporting.figures import colour, legend_below, marker, mean_and_range, panels
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.exact_flow.tables import exact_flow_runs, first_setting, where
from stablevelocity.reporting.sections.exact_flow.view import digits_gain
from stablevelocity.reporting.spec import LAYOUT


def exact_flow(results: Results) -> Figure:
    """Gain of StableVS over its base solver at equal calls against the dimension; a panel for each spread."""
    flow: Any = results.study.exact_flow
    runs = first_setting(results, exact_flow_runs(results))
    spreads = sorted(flow.spreads)
    figure, axes = panels(len(spreads), height=2.4, margin=0.3)
    spectrum = results.csv(LAYOUT.latent_spectrum)
    network = digits_gain(results)
    for axis, spread in zip(axes, spreads, strict=True):
        axis.axhline(0, color="black", linewidth=0.8)
        for place, exponent in enumerate(sorted(flow.exponents)):
            label = f"spectrum $k^{{-{exponent:g}}}$" if exponent else "white"
            look = {"color": colour(place + 1), "marker": marker(place)}
            own = where(runs, exponent=exponent, spread=spread)
            mean_and_range(axis, where(own, guidance=flow.guidance[0]), "dimension", "gain", label=label, **look)
            for guidance in flow.guidance[1:]:
                guided = where(own, guidance=guidance).groupby("dimension")["gain"].mean()
                axis.plot(guided, linestyle="--", **look)
        if network is not None:
            label = f"this study's network, spectrum about $k^{{-{spectrum['exponent'].iloc[0]:.1f}}}$"
            axis.plot(len(spectrum), network, "*", color="black", markersize=9, linestyle="none", label=label)
        axis.set_xscale("log", base=2)
        axis.set_xticks(flow.dimensions, [f"{d:,}" for d in flow.dimensions])
        axis.set(title=f"spread within modes {spread:g}", xlabel="dimension")
    axes[0].set_ylabel("StableVS − base, dB PSNR")
    handles, labels = axes[0].get_legend_handles_labels()
    legend_below(figure, handles, labels)
    return figure
