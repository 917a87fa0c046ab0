"""What Stats computes equals what numpy computes in the plain way, on doubles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from virtual_beamline.area_detector import image_statistics as statistics
from virtual_beamline.area_detector.ndarray import DATA_TYPES

TYPES = [name.lower() for name in DATA_TYPES]


def images(least=0):
    """Images of any type; whole numbers of up to 32 bits and moderate floats, so that the plain way is exact enough."""

    def of(name):
        dtype = np.dtype(name)
        if dtype.kind == "f":
            values = st.floats(max(least, -1e4), 1e4, width=8 * dtype.itemsize)
        else:
            limits = np.iinfo(dtype)
            values = st.integers(max(least, limits.min, -(2**31)), min(limits.max, 2**31 - 1))
        return hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=values)

    return st.sampled_from(TYPES).flatmap(of)


@given(images())
def test_basic_statistics(image):
    found, plain = statistics.basic(image), image.astype(np.float64)
    assert found.minimum == plain.min()
    assert found.maximum == plain.max()
    assert (found.minimum_at, found.maximum_at) == (plain.argmin(), plain.argmax())
    scale = np.abs(plain).max()
    assert found.total == pytest.approx(plain.sum(), rel=1e-12, abs=1e-9 * scale)
    assert found.mean == pytest.approx(plain.mean(), rel=1e-12, abs=1e-9 * scale)
    assert found.sigma == pytest.approx(plain.std(), rel=1e-9, abs=1e-9 * scale)


@given(images(), st.integers(0, 14))
def test_net_is_the_sum_less_the_mean_of_the_border(image, width):
    plain = image.astype(np.float64)
    border = np.ones(plain.shape, bool)
    border[width : plain.shape[0] - width, width : plain.shape[1] - width] = False
    if 2 * width >= min(plain.shape):
        border[...] = True
    expected = plain.sum() - (plain[border].mean() * plain.size if width else 0)
    assert statistics.net(image, plain.sum(), width) == pytest.approx(
        expected, rel=1e-9, abs=1e-9 * np.abs(plain).sum() * plain.size
    )


@given(images(least=0), st.floats(0, 300))
def test_centroid_moments(image, threshold):
    plain = np.where(image >= threshold, image, 0).astype(np.float64)
    found = statistics.centroid(statistics.projections(image, threshold))
    total = plain.sum()
    if not total > 0:
        assert found == statistics.Centroid()
        return
    y, x = np.indices(plain.shape)
    mean_x, mean_y = (plain * x).sum() / total, (plain * y).sum() / total
    variance_x, variance_y = (plain * (x - mean_x) ** 2).sum() / total, (plain * (y - mean_y) ** 2).sum() / total
    covariance = (plain * (x - mean_x) * (y - mean_y)).sum() / total
    assert found.total == pytest.approx(total, rel=1e-12)
    assert (found.x, found.y) == (pytest.approx(mean_x, abs=1e-9), pytest.approx(mean_y, abs=1e-9))
    assert found.sigma_x**2 == pytest.approx(variance_x, abs=1e-9)
    assert found.sigma_y**2 == pytest.approx(variance_y, abs=1e-9)
    for places, mean, variance, skew, kurtosis in (
        (x, mean_x, variance_x, found.skew_x, found.kurtosis_x),
        (y, mean_y, variance_y, found.skew_y, found.kurtosis_y),
    ):
        if variance > 1e-3:
            third, fourth = ((plain * (places - mean) ** power).sum() / total for power in (3, 4))
            assert skew == pytest.approx(third / variance**1.5, abs=1e-6)
            assert kurtosis == pytest.approx(fourth / variance**2 - 3, abs=1e-6)
    if min(variance_x, variance_y) > 1e-3:
        assert found.sigma_xy == pytest.approx(covariance / math.sqrt(variance_x * variance_y), abs=1e-6)
        smaller, larger = np.linalg.eigvalsh([[variance_x, covariance], [covariance, variance_y]])
        assert found.eccentricity == pytest.approx(((larger - smaller) / (larger + smaller)) ** 2, abs=1e-6)


def test_orientation_and_eccentricity_of_a_tilted_ellipse():
    y, x = np.indices((200, 300))
    for degrees in (-60, 0, 25, 80):
        angle = math.radians(degrees)
        along = (x - 150) * math.cos(angle) + (y - 100) * math.sin(angle)
        across = -(x - 150) * math.sin(angle) + (y - 100) * math.cos(angle)
        spot = np.exp(-((along / 20) ** 2) / 2 - (across / 5) ** 2 / 2)
        found = statistics.centroid(statistics.projections(spot, -math.inf))
        assert found.orientation == pytest.approx(degrees, abs=0.01)
        assert found.eccentricity == pytest.approx(((400 - 25) / (400 + 25)) ** 2, rel=1e-3)


@given(images(), st.integers(1, 70), st.floats(-300, 300), st.floats(0.5, 70000))
def test_histogram_is_numpys(image, size, lowest, width):
    found = statistics.histogram(image, size, lowest, lowest + width)
    plain = image.astype(np.float64)
    assert found.counts.sum() == ((plain >= lowest) & (plain <= lowest + width)).sum()
    counts, _ = np.histogram(plain, size, (lowest, lowest + width))
    np.testing.assert_array_equal(found.counts, counts)
    assert (found.below, found.above) == ((plain < lowest).sum(), (plain > lowest + width).sum())
    filled = counts[counts > 0]
    assert found.entropy == pytest.approx(-(filled * np.log(filled)).sum() / plain.size)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_large_image_is_summed_in_bands_without_loss(dtype):
    image = np.random.default_rng(5).integers(0, 120, (1024, 700)).astype(dtype)
    sums = statistics.projections(image, 60.0)
    above = np.where(image >= 60, image, 0).astype(np.float64)
    np.testing.assert_array_equal(sums.x, above.sum(axis=0))
    np.testing.assert_array_equal(sums.y, above.sum(axis=1))
    y, x = np.indices(image.shape)
    assert sums.xy == pytest.approx((above * (x - 349.5) * (y - 511.5)).sum(), rel=1e-9)
    assert statistics.basic(image).sigma == pytest.approx(image.astype(np.float64).std(), rel=1e-12)
