"""Similarity of image pairs against formulas written out, and columns that are absent when they cannot be had."""

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from stablevelocity.errors import UserError
from stablevelocity.evaluation import similarity
from stablevelocity.evaluation.extractors import FeatureBatch
from stablevelocity.evaluation.similarity import compare_images


class Colours:
    name = identity = "colours"

    def __call__(self, images: torch.Tensor) -> FeatureBatch:
        pool = images.float().mean(dim=(1, 2))
        return FeatureBatch(pool, pool, pool)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
    return a, (a + rng.normal(0, 20, a.shape)).clip(0, 255).astype(np.uint8)


def naive_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004 on one channel: 11-pixel Gaussian window of deviation 1.5, images reflected at the border."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = np.pad(x, 5, mode="reflect"), np.pad(y, 5, mode="reflect")
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = x[row : row + 11, column : column + 11], y[row : row + 11, column : column + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * a * a).sum() - ma**2, (window * b * b).sum() - mb**2
            cov = (window * a * b).sum() - ma * mb
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


def test_values_do_not_depend_on_how_many_are_compared_at_once(monkeypatch):
    generator = np.random.default_rng(5)
    a, b = (generator.integers(0, 256, (7, 24, 32, 3), dtype=np.uint8) for _ in range(2))
    most = []
    ssim = similarity._ssim
    monkeypatch.setattr(similarity, "_ssim", lambda x, y: most.append(len(x)) or ssim(x, y))
    whole = compare_images(a, b)
    monkeypatch.setattr(similarity, "MOST_PIXELS", 3 * 24 * 32)
    pd.testing.assert_frame_equal(compare_images(a, b), whole, check_exact=False, rtol=1e-12)
    assert most == [7, 3, 3, 1]


def test_psnr_and_ssim_are_their_formulas(pair):
    a, b = pair
    table = compare_images(a, b)
    assert list(table.columns) == ["psnr", "ssim"]  # 16 px: no LPIPS; no extractor given
    for index in (0, 69):
        x, y = a[index].astype(float), b[index].astype(float)
        assert table["psnr"][index] == pytest.approx(10 * np.log10(255**2 / ((x - y) ** 2).mean()), rel=1e-9)
        expected = np.mean([naive_ssim(x[..., channel], y[..., channel]) for channel in range(3)])
        assert table["ssim"][index] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (16, 16), (64, 48), (40, 97)])
def test_ssim_is_that_of_torchmetrics(height, width):
    generator = np.random.default_rng(height)
    a = generator.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    b = (a + generator.normal(0, 20, a.shape)).clip(0, 255).astype(np.uint8)
    a[2], b[2] = 255, generator.integers(0, 2)  # flat images: variances that are rounding
    pair = [torch.from_numpy(images).permute(0, 3, 1, 2).double() for images in (a, b)]
    expected = structural_similarity_index_measure(*pair, data_range=255.0, reduction="none")
    # Products and sums in another order: some 1e-16 of values of order 1.
    np.testing.assert_allclose(compare_images(a, b)["ssim"], expected, rtol=0, atol=1e-12)


def test_equal_images_are_at_the_bounds(pair):
    table = compare_images(pair[0], pair[0], extractor=Colours())
    assert np.isinf(table["psnr"]).all()
    assert table["ssim"].to_numpy() == pytest.approx(1)
    assert (table["feature_distance"] == 0).all()


def test_feature_distance_is_euclidean_between_pool_features(pair):
    a, b = pair
    table = compare_images(a, b, extractor=Colours())
    expected = np.linalg.norm(a.mean(axis=(1, 2)) - b.mean(axis=(1, 2)), axis=1)
    np.testing.assert_allclose(table["feature_distance"], expected, rtol=1e-4)  # float32 means near 128


def test_lpips_appears_only_with_its_weights(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "lpips" not in compare_images(images, images)
    weights = tmp_path / "checkpoints" / similarity.LPIPS_BACKBONE
    weights.parent.mkdir()
    weights.write_bytes(b"damaged")
    with pytest.raises(UserError, match="does not start with 7be5be79"):
        compare_images(images, images)


def test_unequal_sets_are_refused(pair):
    with pytest.raises(UserError, match=r"shapes \(70, 16, 16, 3\) and \(9, 16, 16, 3\)"):
        compare_images(pair[0], pair[1][:9])
