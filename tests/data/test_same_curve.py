"""However the images reach the network, the loss curve is the same."""

from pathlib import Path

import numpy as np
import pytest
from conftest import first_everyday
from curves import Settings, curve, curves_of_two_devices
from PIL import Image

TOLERANCE = 1e-4
SOURCES = ["digits", "folder", "parts"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Settings]:
    """The shipped digits, and a folder of colour images, fewer than a batch, shown whole and in parts."""
    path = tmp_path_factory.mktemp("images")
    random = np.random.RandomState(0)
    for i in range(50):
        Image.fromarray(random.randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(path / f"{i}.png")
    return {
        "digits": {"source": "digits"},
        "folder": {"source": "folder", "path": str(path), "image_size": 8},
        "parts": {"source": "folder", "path": str(path), "image_size": 8, "crop": "random"},
    }


def ways(num_workers: tuple[int, ...]) -> list[Settings]:
    """On the device, then from the cache, each with and without accumulation."""
    places = [{"device_share": 1}, *({"device_share": 0, "num_workers": n} for n in num_workers)]
    return [{**place, "accumulation": accumulation} for place in places for accumulation in (1, 2)]


def assert_same(found: list[float], expected: list[float], steps: int) -> None:
    assert len(found) == len(expected) == steps
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


@pytest.mark.parametrize("source", first_everyday(SOURCES))
def test_on_one_device(sources: dict[str, Settings], source: str):
    steps = 5
    expected, *others = [curve({**sources[source], **way}, steps) for way in ways((0, 2))]
    assert expected[-1] < expected[0]
    for found in others:
        assert_same(found, expected, steps)


@pytest.mark.slow
@pytest.mark.e2e
def test_on_two_devices(sources: dict[str, Settings], tmp_path: Path):
    steps = 5
    many = [
        {**sources[source], **way}
        for source in SOURCES
        for way in ({"device_share": 1}, {"device_share": 0, "num_workers": 2, "accumulation": 2})
    ]
    for settings, found in zip(many, curves_of_two_devices(many, steps, tmp_path), strict=True):
        assert_same(found, curve({**settings, "num_workers": 0, "accumulation": 1}, steps), steps)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_fifty_steps(sources: dict[str, Settings], source: str, tmp_path: Path):
    steps = 50
    many = [{**sources[source], **way} for way in ways((0, 2, 4))]
    expected, *others = [curve(settings, steps) for settings in many]
    others += curves_of_two_devices(many, steps, tmp_path)
    print(f"{source}: largest relative difference of {len(others)} curves", end=" ")
    print(np.abs(np.array(others) / expected - 1).max())
    for found in others:
        assert_same(found, expected, steps)
