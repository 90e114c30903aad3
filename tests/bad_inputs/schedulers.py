"""Schedulers in a pipeline of one's own: options, steps and configs that have no meaning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from bad_inputs.case import Case
from stablevelocity import schedulers

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Euler": (schedulers.StableVSFlowMatchEulerScheduler, {"shift": 3.0}),
    "DPM": (schedulers.StableVSDPMSolverMultistepScheduler, FLOW),
    "UniPC": (schedulers.StableVSUniPCMultistepScheduler, FLOW),
}
NAN, INF = float("nan"), float("inf")
OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"xi": -0.1}, r"xi must be in \[0, 1\], got -0\.1"),
    ({"xi": 1.5}, r"xi must be in"),
    ({"xi": NAN}, r"xi must be in \[0, 1\], got nan"),
    ({"xi": "0.8"}, r"xi must be in"),
    ({"xi": None}, r"xi must be in"),
    ({"low_steps": 0}, r"low_steps must be a whole number >= 1, got 0"),
    ({"low_steps": 2.5}, r"low_steps must be a whole number"),
    ({"low_steps": INF}, r"low_steps must be a whole number"),
    ({"low_steps": True}, r"low_steps must be a whole number"),
    ({"low_steps": "9"}, r"low_steps must be a whole number"),
    ({"calls": 0}, r"calls must be a whole number >= 1, got 0"),
    ({"calls": 2.5}, r"calls must be a whole number"),
    ({"noise_factor": -1}, r"noise_factor must be in \[0, 1\], got -1"),
    ({"noise_factor": NAN}, r"noise_factor must be in"),
    ({"noise_factor": "1"}, r"noise_factor must be in"),
    ({"grid": []}, r"grid is empty"),
    ({"grid": [0.5, 0.9]}, r"grid needs flow sigmas that decrease"),
    ({"grid": [0.5, 0.5]}, r"grid needs flow sigmas that decrease"),
    ({"grid": [1.5, 0.5]}, r"grid needs flow sigmas that decrease"),
    ({"grid": [0.5, 0.0]}, r"grid needs flow sigmas that decrease"),
    ({"grid": [NAN, 0.5]}, r"grid needs flow sigmas that decrease"),
    ({"grid": ["a"]}, r"grid must be a list of numbers"),
    ({"grid": [[0.5]]}, r"grid must be a list of numbers"),
    ({"grid": 0.5}, r"grid must be a list of numbers"),
    ({"grid": [0.9, 0.5], "calls": 5}, r"expected one of the two"),
]
STEPS: list[tuple[dict[str, Any], str]] = [
    ({"num_inference_steps": 0}, r"0 steps given"),
    ({"num_inference_steps": -3}, r"-3 steps given"),
    ({"num_inference_steps": 2.5}, r"2\.5 steps given"),
    ({"num_inference_steps": True}, r"True steps given"),
    ({"num_inference_steps": None}, r"None steps given"),
    ({"num_inference_steps": "30"}, r"'30' steps given"),
    ({"sigmas": []}, r"an empty list"),
    ({"sigmas": [0.5, 0.9]}, r"decrease strictly"),
    ({"sigmas": [0.5, NAN]}, r"decrease strictly"),
    ({"sigmas": [INF, 0.5]}, r"decrease strictly"),
    ({"sigmas": [0.5, 0.5]}, r"decrease strictly"),
    ({"sigmas": [0.9, -0.5]}, r"decrease strictly"),
]


def made(kind: str, options: dict[str, Any]) -> Callable[[Path], None]:
    scheduler, flow = KINDS[kind]
    return lambda folder: scheduler(**flow | options) and None


def stepped(kind: str, call: dict[str, Any]) -> Callable[[Path], None]:
    scheduler, flow = KINDS[kind]
    return lambda folder: scheduler(**flow).set_timesteps(**call)


def converted(kind: str, config: Any, **options: Any) -> Callable[[Path], None]:
    return lambda folder: KINDS[kind][0].from_config(config, **options) and None


CONFIGS: list[tuple[str, Any, dict[str, Any], str]] = [
    ("of a model that predicts noise", EulerDiscreteScheduler().config, {}, r"prediction_type 'epsilon'"),
    ("with inverted sigmas", FlowMatchEulerDiscreteScheduler(invert_sigmas=True).config, {}, r"invert_sigmas"),
    ("with fresh noise", FlowMatchEulerDiscreteScheduler(stochastic_sampling=True).config, {}, r"stochastic_sampling"),
    ("tuned by a file that is not there", {"shift": 3.0}, {"xi": "auto", "tuning": "no.json"}, r"no\.json'?: no such"),
    ("with a tuning that is not asked for", {"shift": 3.0}, {"xi": 0.8, "tuning": "x.json"}, r"for xi='auto' only"),
    ("with a misspelled option", {"shift": 3.0}, {"lowsteps": 3}, r"lowsteps=3 is no option"),
    ("with an xi above 1", {"shift": 3.0}, {"xi": 2}, r"xi must be in"),
]
CASES = [Case(f"{kind}: {options}", made(kind, options), line) for kind in KINDS for options, line in OPTIONS]
CASES += [Case(f"{kind}: set_timesteps {call}", stepped(kind, call), line) for kind in KINDS for call, line in STEPS]
CASES += [
    Case(f"{kind}: a config {name}", converted(kind, config, **options), line)
    for kind in KINDS
    for name, config, options, line in CONFIGS
]
