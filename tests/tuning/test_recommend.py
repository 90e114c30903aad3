"""Recommendations against truths: enumerated grids, flows that are straight where they should be, Gaussian data."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.gmm import GaussianMixture
from stablevelocity.sampling import euler
from stablevelocity.schedulers import StableVSDPMSolverMultistepScheduler, StableVSFlowMatchEulerScheduler
from stablevelocity.tuning import Trajectory, recommend, record, trajectory
from stablevelocity.tuning.compare import arms_for, two_sets
from stablevelocity.tuning.recommend import LongRuns, thinned

SHIFTED = [3 * s / (1 + 2 * s) for s in np.linspace(1, 0, 31)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixture(modes=40, dimension=32, spread=0.1):
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(modes, dimension, generator=generator, dtype=torch.float64)
    return GaussianMixture(torch.ones(modes), means, torch.full_like(means, spread**2))


def psnr(end, long_end):
    peak = long_end.max() - long_end.min()
    return float((10 * torch.log10(peak**2 / (end - long_end).square().mean(1))).clamp(max=100).mean())


def run(velocity, x, levels):
    return euler(velocity, x, torch.tensor([*levels, 0.0] if levels[-1] else levels, dtype=torch.float64))


def multistep_run(velocity, x, steps=30, **options):
    """What DPM-Solver++ went through, of second order and with shift 3."""
    scheduler = StableVSDPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, **(options or {"enabled": False})
    )
    scheduler.set_timesteps(steps)
    with record(scheduler) as recording:
        for sigma, timestep in zip(scheduler.sigmas.tolist(), scheduler.timesteps, strict=False):
            x = scheduler.step(velocity(x, sigma), timestep, x, return_dict=False)[0]
    return recording.trajectory()


def test_a_long_run_is_eulers():
    velocity, x = mixture().velocity, noise(5, 32)
    long = trajectory(velocity, x, SHIFTED[:-1])  # the final 0 may be left out
    assert long.sigmas == tuple(SHIFTED)
    # The solver keeps its state in float64, the trajectory in float32.
    torch.testing.assert_close(long.states[-1], run(velocity, x, SHIFTED).float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(long.velocities[3], velocity(long.states[3], SHIFTED[3]))


@pytest.mark.parametrize("multistep", [False, True])
def test_the_grid_is_the_best_of_all_grids(multistep):
    steps = 7
    levels = tuple(np.linspace(1, 0, steps + 1).tolist())
    runs = LongRuns([Trajectory(levels, noise(steps + 1, 3, 5), noise(steps, 3, 5, seed=1), multistep)])
    best = runs.best_grids()
    for calls in range(1, steps + 1):
        every = [(0, *middle, steps) for middle in itertools.combinations(range(1, steps), calls - 1)]
        costs = []
        for grid in every:
            triples = zip((None, *grid), grid, grid[1:], strict=False)
            costs.append(sum(float(runs.error(i, j, before).square().mean()) for before, i, j in triples))
        assert tuple(best[calls]) == every[int(np.argmin(costs))]


@pytest.mark.parametrize("multistep", [False, True])
def test_costs_are_the_mean_squares_of_errors(multistep):
    """Of more values than are multiplied at once."""
    levels = (1.0, 0.7, 0.4, 0.1, 0.0)
    runs = LongRuns([Trajectory(levels, noise(5, 2, 9000), noise(4, 2, 9000, seed=1), multistep)])
    costs = runs._costs()
    for i, j in itertools.combinations(range(5), 2):
        errors = {(i, j): runs.error(i, j)}
        if multistep:
            errors = {(h, i, j): runs.error(i, j, h) for h in range(i)} if i else {(0, 0, j): runs.error(0, j)}
        for place, error in errors.items():
            # Products are summed in float64, errors are differences in float32.
            np.testing.assert_allclose(costs[place], error.double().square().mean(), rtol=1e-5)


def test_steps_below_xi_are_expected_without_history():
    runs = LongRuns([Trajectory((0.9, 0.7, 0.4, 0.1, 0.0), noise(5, 2, 6), noise(4, 2, 6, seed=1), True)])
    total = runs.error(0, 1) + runs.error(1, 2, 0) + runs.error(2, 3) + runs.error(3, 4)
    end = runs.x[-1]
    expected = 10 * torch.log10((end.max() - end.min()) ** 2 / total.square().mean(dim=1))
    assert runs.expected(range(5), closed_form_from=2) == pytest.approx(float(expected.mean()), abs=1e-4)


def test_xi_is_where_the_solvers_own_steps_are_nearest():
    long = multistep_run(mixture().velocity, noise(4, 32))
    runs, recommendation = LongRuns([long]), recommend(long, calls=16)
    expected = {high: runs.expected(path) for high in range(1, 16) if (path := thinned(30, high, 16, True))}
    assert 16 - recommendation.low_steps == max(expected, key=lambda high: expected[high])


def test_own_steps_of_dpm_solver_cost_nothing():
    """Errors are counted from diffusers' own steps, of first order at the ends and of second between."""
    long = multistep_run(mixture().velocity, noise(4, 32))
    runs = LongRuns([long])
    own = torch.stack([runs.error(i, i + 1, i - 1 if i else None) for i in range(30)])
    eulers = torch.stack([runs.error(i, i + 1) for i in range(30)])
    # float32: states of size 1 to 4, so 5e-7 by rounding alone, and the differences of lambda multiply it.
    assert own.abs().max() < 1e-5
    assert eulers[1:-1].abs().amax(dim=(1, 2)).median() > 100 * own.abs().max()


def test_no_step_is_spent_where_the_velocity_no_longer_turns():
    direction = noise(1, 6)

    def velocity(x, sigma):
        """Turns down to 0.5, straight on from there."""
        return direction.roll(round(20 * sigma) if sigma > 0.5 else 0, 1).expand_as(x)

    levels = np.linspace(1, 0, 21).tolist()
    long = trajectory(velocity, noise(4, 6), levels)
    recommendation = recommend(long, calls=11)
    assert recommendation.grid == tuple(levels[:11])  # 1 to 0.55, and 0.5, from which one step goes to the end
    assert recommendation.expected_grid == 100
    torch.testing.assert_close(run(velocity, noise(4, 6), recommendation.grid).float(), long.states[-1])
    assert max(recommendation.turning[11:]) < 1e-3 < min(recommendation.turning[1:10])
    assert max(recommendation.skip_error[10:]) < 1e-6 < min(recommendation.skip_error[:9])
    assert max(recommendation.clean_change[11:]) < 1e-5 < min(recommendation.clean_change[:10])


def test_expected_distances_are_met_on_gaussian_data():
    """There errors grow as the state does, so only terms of second order in the step are neglected."""
    scale = 1 / torch.arange(1, 33, dtype=torch.float64)
    data = GaussianMixture(torch.ones(1), torch.zeros(1, 32), (4 * scale**2)[None])
    long = trajectory(data.velocity, noise(16, 32), SHIFTED)
    recommendation = recommend(long, calls=20)
    path = thinned(30, 20 - recommendation.low_steps, 20, False)
    for grid, expected in (
        (recommendation.grid, recommendation.expected_grid),
        ([SHIFTED[i] for i in path[:-1]], recommendation.expected_tuned),
    ):
        measured = psnr(run(data.velocity, noise(16, 32), grid).float(), long.states[-1])
        assert abs(measured - expected) < 1.5


def test_expected_distances_are_met_on_gaussian_data_by_multistep_solvers_too():
    """Within what Euler's are (above); here 0.2 and 0.4 dB were seen. Not UniPC's, whose corrector is not counted."""
    scale = 1 / torch.arange(1, 33, dtype=torch.float64)
    data = GaussianMixture(torch.ones(1), torch.zeros(1, 32), (4 * scale**2)[None])
    long = multistep_run(data.velocity, noise(16, 32))
    recommendation = recommend(long, calls=16)
    thinning = {"xi": recommendation.xi, "low_steps": recommendation.low_steps}
    for options, expected in (
        ({"xi": 0.0, "grid": list(recommendation.grid)}, recommendation.expected_grid),
        (thinning, recommendation.expected_tuned),
    ):
        measured = multistep_run(data.velocity, noise(16, 32), **options)
        assert measured.velocities.shape[0] == 16
        assert abs(psnr(measured.states[-1], long.states[-1]) - expected) < 1.5


def test_xi_and_low_steps_thin_a_scheduler_to_the_grid_they_stand_for():
    long = trajectory(mixture().velocity, noise(4, 32), SHIFTED)
    for calls in (8, 14, 20, 27):
        recommendation = recommend(long, calls=calls)
        scheduler = StableVSFlowMatchEulerScheduler(shift=3.0, xi=recommendation.xi, low_steps=recommendation.low_steps)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 30, 30).tolist())
        path = thinned(30, calls - recommendation.low_steps, calls, False)
        np.testing.assert_allclose(scheduler.sigmas, [SHIFTED[i] for i in path], atol=1e-6)


@pytest.mark.parametrize("calls", [12, 20])
def test_the_free_grid_reaches_the_best_of_every_xi_on_a_known_flow(calls):
    velocity = mixture().velocity
    tuning, held_out = (noise(count, 32, seed=seed) for count, seed in ((3, 1), (24, 2)))
    end = run(velocity, held_out, SHIFTED)
    sweep = []
    for high in range(1, calls):
        path = thinned(30, high, calls, False)
        if path:
            sweep.append(psnr(run(velocity, held_out, [SHIFTED[i] for i in path]), end))
    recommendation = recommend(trajectory(velocity, tuning, SHIFTED), calls=calls)
    assert psnr(run(velocity, held_out, recommendation.grid), end) > max(sweep) - 0.5


def test_a_distance_is_reached_by_the_fewest_calls_expected_to():
    long = trajectory(mixture().velocity, noise(4, 32), SHIFTED)
    recommendation = recommend(long, loss_db=50)
    assert recommendation.expected_grid >= 50 > recommend(long, calls=recommendation.calls - 1).expected_grid


@pytest.mark.parametrize(
    "spatial, same",
    [((4, 8, 8), True), ((16, 12), True), ((4, 3, 8, 8), True)],
)
def test_frequencies_keep_the_size_of_an_error(spatial, same):
    """Latents, tokens and videos: the transform is orthonormal, so costs are those of plain differences."""
    states, velocities = noise(4, 2, *spatial), noise(3, 2, *spatial, seed=1)
    runs = LongRuns([Trajectory((1.0, 0.6, 0.3, 0.0), states, velocities)])
    torch.testing.assert_close(runs.x.square().sum(2), states.flatten(2).square().sum(2))
    torch.testing.assert_close(runs.v.square().sum(2), velocities.flatten(2).square().sum(2))


def test_mistakes_end_in_one_line():
    long = trajectory(mixture().velocity, noise(2, 32), SHIFTED)
    other = trajectory(mixture().velocity, noise(2, 32), SHIFTED[::2])
    for arguments, options, expected in (
        ([[long, other]], {"calls": 20}, "same sigmas"),
        ([[long, replace(long, multistep=True)]], {"calls": 20}, "same solver"),
        ([long], {"calls": 30}, "2 to 29"),
        ([long], {}, "one of the two"),
        ([long], {"calls": 20, "loss_db": 40.0}, "one of the two"),
        ([long], {"loss_db": 1000.0}, "29 calls of 30"),
        ([long], {"calls": "20"}, "2 to 29"),
        ([[long, trajectory(lambda x, sigma: x, noise(2, 16), SHIFTED)]], {"calls": 20}, "expected one shape"),
        ([trajectory(lambda x, sigma: 0 * x, torch.ones(1, 2), SHIFTED)], {"calls": 20}, "all final values are equal"),
    ):
        with pytest.raises(UserError, match=expected):
            recommend(*arguments, **options)
    with pytest.raises(UserError, match="fall strictly"):
        trajectory(lambda x, sigma: x, noise(1, 2), [0.1, 0.5, 0.9])
    with pytest.raises(UserError, match="NaN"):
        trajectory(lambda x, sigma: x * math.nan, noise(1, 2), [1, 0.5, 0])
    with pytest.raises(UserError, match=r"sigmas ; expected at least 3"):
        trajectory(lambda x, sigma: x, noise(1, 2), [])
    with pytest.raises(UserError, match=r"fall strictly"):  # before the first call
        trajectory(lambda x, sigma: pytest.fail("called"), noise(1, 2), [1000, 500, 0])
    for velocity, given in ((lambda x, sigma: x[:, :1], r"\(1, 1\)"), (lambda x, sigma: 1.0, "float")):
        with pytest.raises(UserError, match=rf"velocity\(x, 1\) is {given}; expected a tensor like x, \(1, 2\)"):
            trajectory(velocity, noise(1, 2), [1, 0.5, 0])
    with pytest.raises(UserError, match=r"expected \(batch, ...\)"):
        trajectory(lambda x, sigma: x, torch.randn(2), [1, 0.5, 0])


def test_a_velocity_may_reuse_its_memory_and_change_its_input():
    """As compiled networks do (the same output buffer), and modules that work in place."""
    buffer = torch.empty(2, 3)

    def careless(x, sigma):
        torch.mul(x, sigma, out=buffer)
        x.zero_()
        return buffer

    levels = [1, 0.7, 0.4, 0]
    kept, plain = (trajectory(v, noise(2, 3), levels) for v in (careless, lambda x, sigma: x * sigma))
    assert torch.equal(kept.states, plain.states)
    assert torch.equal(kept.velocities, plain.velocities)


def test_the_control_arm_stands_on_the_levels_of_the_tuned_one():
    long = multistep_run(mixture().velocity, noise(4, 32))
    for calls in (8, 14, 20, 27):
        arms = arms_for(long, calls, recommend(long, calls=calls))
        tuned, control = (
            multistep_run(lambda x, sigma: x, noise(1, 2), **arms[name].options) for name in ("tuned", "control")
        )
        np.testing.assert_allclose(tuned.sigmas, control.sigmas, atol=1e-6)


def test_two_sets_count_the_steps_that_the_chosen_arm_takes():
    runs = [multistep_run(mixture().velocity, noise(2, 32, seed=seed)) for seed in (0, 1)]
    placed, whole = recommend(runs[0], calls=12), LongRuns(runs)
    path = thinned(30, high := 12 - placed.low_steps, 12, True)
    for arm, closed in (("tuned", high), ("control", None)):
        assert two_sets(arm, placed, runs[:1], runs[1:])[0] == whole.expected(path, closed_form_from=closed)


def test_a_run_of_eulers_is_one_whatever_config_it_came_from():
    """diffusers keeps another class's options in the config, solver_order among them."""
    base = StableVSDPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", solver_order=2)
    scheduler = StableVSFlowMatchEulerScheduler.from_config(base.config, enabled=False)
    scheduler.set_timesteps(3)
    with record(scheduler) as recording:
        for timestep in scheduler.timesteps:
            scheduler.step(noise(1, 4), timestep, noise(1, 4))
    assert not recording.trajectory().multistep
