"""Metrics against closed forms, scipy in float64, naive loops, and torch-fidelity."""

import numpy as np
import pytest
import scipy.linalg
import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from stablevelocity.errors import UserError
from stablevelocity.evaluation.fidelity import (
    GaussianStatistics,
    frechet_distance,
    gaussian_statistics,
    inception_score,
    precision_recall,
)


def features(count: int, d: int, seed: int) -> Tensor:
    """Correlated, shifted, skewed rows."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator)
    return (torch.randn(count, d, generator=generator) @ mixing).relu() + seed


def chunks(rows: Tensor, size: int) -> list[Tensor]:
    return list(rows.split(size))


def test_streamed_statistics_equal_numpy_for_any_chunk_size():
    rows = features(1000, 20, 1) + 1e4  # an offset that a one-pass sum of squares does not survive
    truth_mean, truth_covariance = rows.double().numpy().mean(0), np.cov(rows.double().numpy(), rowvar=False)
    for size in (1, 7, 64, 1000):
        statistics = gaussian_statistics(chunks(rows, size))
        np.testing.assert_allclose(statistics.mean, truth_mean, rtol=1e-13)
        # 1e-9: rounding of values near 1e4 in float64 (1e-12) against variances of order 10.
        np.testing.assert_allclose(statistics.covariance, truth_covariance, rtol=1e-9, atol=1e-9)


def test_fid_equals_scipy_matrix_square_root():
    a, b = features(500, 30, 1), features(400, 30, 2)
    a64, b64 = a.double().numpy(), b.double().numpy()
    sigma_a, sigma_b = np.cov(a64, rowvar=False), np.cov(b64, rowvar=False)
    root = scipy.linalg.sqrtm(sigma_a @ sigma_b)
    shift = a64.mean(0) - b64.mean(0)
    truth = shift @ shift + np.trace(sigma_a + sigma_b - 2 * root.real)
    assert frechet_distance(gaussian_statistics([a]), gaussian_statistics([b])) == pytest.approx(truth, rel=1e-9)


def test_fid_of_axis_aligned_gaussians_is_the_closed_form():
    d = 12
    mean_a, mean_b = torch.arange(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64)
    deviation_a, deviation_b = torch.linspace(0, 3, d).double(), torch.linspace(2, 0, d).double()
    a = GaussianStatistics(mean_a, torch.diag(deviation_a**2))
    b = GaussianStatistics(mean_b, torch.diag(deviation_b**2))
    truth = ((mean_a - mean_b) ** 2).sum() + ((deviation_a - deviation_b) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(float(truth), rel=1e-12)


def test_fid_survives_covariances_of_rank_one_in_500_dimensions():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    zero = torch.zeros(500, dtype=torch.float64)
    left = GaussianStatistics(zero, torch.outer(a, a))
    right = GaussianStatistics(zero, torch.outer(b, b))
    # tr (a a^T b b^T)^1/2 = |a . b|; a root taken after the product would be off by 500 * 1e-8 * 500.
    truth = a @ a + b @ b - 2 * (a @ b).abs()
    assert frechet_distance(left, right) == pytest.approx(float(truth), rel=1e-11)
    assert frechet_distance(left, left) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("count", "d"), [(500, 30), (2000, 300), (10, 40), (2, 1)])
def test_the_distance_of_equal_sets_is_zero_and_of_nearly_equal_ones_is_not(count: int, d: int):
    rows = features(count, d, 1).double()
    # The same rows in another order: statistics that differ by rounding alone.
    for other in (rows, rows.flip(0)):
        assert frechet_distance(gaussian_statistics([rows]), gaussian_statistics([other])) == 0
    # A shift of the mean alone adds its square; 1e-5 per feature is far above rounding (1e-13 of the traces).
    moved = frechet_distance(gaussian_statistics([rows]), gaussian_statistics([rows + 1e-5]))
    assert moved == pytest.approx(d * 1e-10, rel=0.05)


def test_fewer_images_than_features_are_cautioned_about_and_defined():
    few = gaussian_statistics([features(10, 40, 3)])
    assert few.caution.startswith("10 images for 40 features")
    assert gaussian_statistics([features(41, 40, 3)]).caution == ""
    assert np.isfinite(frechet_distance(few, gaussian_statistics([features(100, 40, 3)])))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad: float):
    rows = features(8, 4, 0)
    rows[5, 2] = bad
    with pytest.raises(UserError, match="1 of the 8 rows"):
        gaussian_statistics([rows])
    with pytest.raises(UserError, match="NaN or infinity"):
        inception_score(rows, splits=2)
    with pytest.raises(UserError, match="NaN or infinity"):
        precision_recall(rows, features(8, 4, 0))


def test_one_image_has_no_covariance():
    with pytest.raises(UserError, match="at least 2 images, given 1"):
        gaussian_statistics([torch.zeros(1, 4)])


def test_inception_score_of_a_known_table_in_file_order():
    # Two splits of two rows. First: two certain, different classes: KL = log 2 each. Second: equal rows: KL = 0.
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.7, 0.3], [0.7, 0.3]])
    logits = table.clamp(min=1e-30).log()
    score = inception_score(logits, splits=2)
    assert score.mean == pytest.approx((2 + 1) / 2, rel=1e-6)
    assert score.deviation == pytest.approx(0.5, rel=1e-6)
    # A shuffle over the splits would give another number.
    assert inception_score(logits[[0, 2, 1, 3]], splits=2).mean != pytest.approx(score.mean, rel=1e-2)


def test_inception_score_equals_the_loop_over_uneven_splits():
    logits = features(103, 7, 5)
    p = torch.softmax(logits.double(), 1).numpy()
    scores = []
    for i in range(10):
        part = p[i * 103 // 10 : (i + 1) * 103 // 10]
        marginal = part.mean(0)
        scores.append(np.exp(np.mean([np.sum(row * np.log(row / marginal)) for row in part])))
    score = inception_score(logits)
    assert score.mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert score.deviation == pytest.approx(np.std(scores), rel=1e-12)


def test_fewer_images_than_splits_is_refused():
    with pytest.raises(UserError, match=r"per split \(10\), given 9"):
        inception_score(torch.zeros(9, 3))


def test_precision_and_recall_by_hand_on_asymmetric_clusters():
    """Generated: one tight cluster inside a broad real one, plus real images far away that nothing covers.

    All generated lie among real images: precision 1. Only the real images within the tight cluster are
    covered: recall 1/2 at most. Swapping the two sets swaps the numbers.
    """
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0], [101.0], [102.0], [103.0]])
    fake = torch.tensor([[1.1], [1.2], [1.3], [1.4], [1.5]])
    # k = 2. Balls of fake: radii .2 .1 .1 .1 .2 -> cover [0.9, 1.7]: real point 1.0 only. Balls of real 0..3:
    # radii 2 1 1 2: cover all fakes.
    coverage = precision_recall(fake, real, neighbours=2)
    assert coverage.precision == 1.0
    assert coverage.recall == 1 / 8
    swapped = precision_recall(real, fake, neighbours=2)
    assert (swapped.precision, swapped.recall) == (1 / 8, 1.0)


def test_precision_and_recall_equal_the_naive_loops_for_any_block():
    generator = torch.Generator().manual_seed(0)
    fake = torch.randn(90, 5, generator=generator) * 0.9
    real = torch.randn(60, 5, generator=generator) + 0.7

    def radius(points: np.ndarray, i: int) -> float:
        others = np.delete(points, i, axis=0)
        return np.sort(np.linalg.norm(others - points[i], axis=1))[2]

    f, r = fake.double().numpy(), real.double().numpy()
    precision = np.mean([any(np.linalg.norm(x - c) <= radius(r, i) for i, c in enumerate(r)) for x in f])
    recall = np.mean([any(np.linalg.norm(x - c) <= radius(f, i) for i, c in enumerate(f)) for x in r])
    for block in (1, 500, 2**24):
        coverage = precision_recall(fake, real, block_elements=block)
        assert (coverage.precision, coverage.recall) == (precision, recall)
    assert {precision, recall}.isdisjoint({0.0, 1.0})
    assert precision != recall


def test_precision_and_recall_are_exact_where_float32_cannot_tell():
    """Generated points on the spheres of the real ones but for rounding, and copies; all far from 0."""
    generator = torch.Generator().manual_seed(0)

    def truth(points: torch.Tensor) -> torch.Tensor:
        squared = (points.double()[:, None] - points.double()).square().sum(dim=2)
        return squared.fill_diagonal_(torch.inf).kthvalue(3, dim=1).values

    real = torch.randn(300, 64, generator=generator) + 10
    direction = torch.nn.functional.normalize(torch.randn(300, 64, generator=generator).double())
    fake = torch.cat([(real + truth(real).sqrt()[:, None] * direction).float(), real[:30]])
    across = (fake.double()[:, None] - real.double()).square().sum(dim=2)
    for block in (10_000, 2**21):
        coverage = precision_recall(fake, real, block_elements=block)
        assert torch.equal(coverage.generated_inside, (across <= truth(real)).any(dim=1))
        assert torch.equal(coverage.reference_inside, (across <= truth(fake)[:, None]).any(dim=0))
    assert 0.3 < coverage.generated_inside[:300].double().mean() < 0.9


def test_too_few_images_for_the_neighbours_are_refused():
    with pytest.raises(UserError, match="more than 3 generated images, given 3"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))


class MeanFeatures(FeatureExtractorBase):
    """A small extractor for torch-fidelity: 12 block means; the logits are a fixed map of them."""

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)
        self.map = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)) / 10

    @staticmethod
    def get_provided_features_list():
        return "pool", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "pool"

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, images):
        pool = torch.nn.functional.avg_pool2d(images.float(), 4).flatten(1)
        outputs = {"pool": pool, "logits": (pool - 128) @ self.map}
        return tuple(outputs[name] for name in self.features_list)


class Images(Dataset):
    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_all_metrics_equal_torch_fidelity_on_the_same_images_and_extractor():
    generator = torch.Generator().manual_seed(4)
    # Colours spread widely, pixel noise little, so that the two sets overlap in part.
    fake = torch.randint(40, 180, (150, 3, 1, 1), generator=generator)
    real = torch.randint(60, 220, (120, 3, 1, 1), generator=generator)
    fake, real = (
        (colour + torch.randint(-30, 30, (len(colour), 3, 8, 8), generator=generator)).to(torch.uint8)
        for colour in (fake, real)
    )
    if "block-means" not in torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor("block-means", MeanFeatures)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(fake),
        input2=Images(real),
        feature_extractor="block-means",
        feature_layer_isc="logits",
        feature_layer_fid="pool",
        feature_layer_prc="pool",
        isc=True,
        fid=True,
        prc=True,
        samples_shuffle=False,  # ADM's convention
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    extractor = MeanFeatures("block-means", ["pool", "logits"])
    (fake_pool, fake_logits), (real_pool, _) = extractor(fake), extractor(real)
    fid = frechet_distance(gaussian_statistics([fake_pool]), gaussian_statistics([real_pool]))
    assert fid == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    score = inception_score(fake_logits)
    assert score.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert score.deviation == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    coverage = precision_recall(fake_pool, real_pool)
    assert coverage.precision == pytest.approx(theirs["precision"], abs=1e-6)
    assert coverage.recall == pytest.approx(theirs["recall"], abs=1e-6)
    assert coverage.precision != coverage.recall


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_and_recall_of_half_precision_features_are_those_of_the_same_numbers_in_float64(dtype):
    """Far from the origin: a difference taken in half precision would be off by more than what the bound allows for."""
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        centre = torch.randn(1, 16, generator=g) * 50
        a, b = ((centre + torch.randn(300, 16, generator=g)).to(dtype) for _ in range(2))
        ours, exact = precision_recall(a, b), precision_recall(a.double(), b.double())
        assert torch.equal(ours.generated_inside, exact.generated_inside)
        assert torch.equal(ours.reference_inside, exact.reference_inside)
