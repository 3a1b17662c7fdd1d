"""Published pipelines of diffusers are imported and draw the same here, or are refused with the reason."""

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from conftest import first_everyday
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.schedulers import scheduling_ddpm
from published import PIPELINES, Pipeline, awake, narrow
from torch import Tensor

from ddpm import targets
from ddpm.diffusion.samplers import Trajectory
from ddpm.diffusion.schedules import linear
from ddpm.interop.checkpoints_of_others import import_model
from ddpm.interop.diffusers import export_run, import_pipeline
from ddpm.interop.schedulers import LEFT_OUT, WITHOUT_LOWEST, complete, parts, unfollowed
from ddpm.interop.unet2d import unet_from_diffusers, unet_settings, unet_to_diffusers
from ddpm.networks import UNet
from ddpm.run import Run, load

pytestmark = pytest.mark.usefixtures("seeded")

IMPORTED = {name: pipeline for name, pipeline in PIPELINES.items() if not pipeline.refused}
NOT_IMPORTED = {name: pipeline for name, pipeline in PIPELINES.items() if pipeline.refused}
STEPS = 10
PARTS = ("unet", "scheduler")


def publish(published: Pipeline, directory: Path, *, weights: bool = True) -> Path:
    """Writes a pipeline as the hub holds it, its network narrowed."""
    part = (lambda name: directory / name) if published.folders else (lambda _: directory)
    index = {
        "_class_name": published.kind,
        "_diffusers_version": published.version,
        "scheduler": ["diffusers", published.scheduler["_class_name"]],
        **({"unet": ["diffusers", "UNet2DModel"]} if published.unet else {}),
        **published.others,
    }
    origin = {"_diffusers_version": published.version}
    files = {directory / "model_index.json": index}
    files[part("scheduler") / "scheduler_config.json"] = {**published.scheduler, **origin}
    if published.unet:
        unet = published.unet if published.refused else narrow(published.unet)
        files[part("unet") / "config.json"] = {"_class_name": "UNet2DModel", **unet, **origin}
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    if weights:
        state = awake(UNet2DModel.from_config(unet)).state_dict()
        if published.version < "0.15":
            for new, old in (
                ("to_q", "query"),
                ("to_k", "key"),
                ("to_v", "value"),
                ("to_out.0", "proj_attn"),
            ):
                state = {name.replace(f".{new}.", f".{old}."): one for name, one in state.items()}
        torch.save(state, part("unet") / "diffusion_pytorch_model.bin")
    return directory


def noise_of(t: int, like: Tensor) -> Tensor:
    drawn = torch.Generator().manual_seed(t)
    return torch.randn(like.shape, generator=drawn, dtype=torch.float64)


def ours(run: Run, x_t: Tensor) -> tuple[Tensor, ...]:
    """Every x_t and the image, by the sampler that the import chose, in few steps."""
    sampler = targets.build("sampler", {**run.config["sampler"], "num_steps": STEPS})
    run.module.network.double()
    path = Trajectory()
    with torch.inference_mode():
        image = sampler(run.module.denoiser(), run.module.schedule, x_t, noise=noise_of, on_step=path)
    return *path.x_t.values(), image


def theirs(
    directory: Path, pipeline: str, betas: Tensor, x_t: Tensor, patch: pytest.MonkeyPatch
) -> tuple[Tensor, ...]:
    """The same by the loop of the pipeline, its tables in float64. What DDIM makes of a clipped x_0 is ours
    with `use_clipped_model_output`.
    """
    unet, scheduler = (directory / name if (directory / name).is_dir() else directory for name in PARTS)
    network = UNet2DModel.from_pretrained(unet, use_safetensors=False).double().eval()
    stated = json.loads((scheduler / "scheduler_config.json").read_text())
    kind = "DDIMScheduler" if pipeline == "DDIMPipeline" else stated["_class_name"]
    steps = getattr(diffusers, kind).from_pretrained(scheduler)
    torch.testing.assert_close(betas.float(), steps.betas, rtol=2e-4, atol=1e-6)
    in_float64(steps, betas)
    steps.set_timesteps(STEPS)
    settings = {"use_clipped_model_output": True} if kind == "DDIMScheduler" else {}
    path = [x_t]
    with torch.inference_mode():
        for t in steps.timesteps:
            given = noise_of(int(t), x_t)
            patch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, given=given, **__: given)
            path.append(steps.step(network(path[-1], t).sample, t, path[-1], **settings).prev_sample)
    return tuple(path)


def in_float64(scheduler: DDPMScheduler | DDIMScheduler, betas: Tensor) -> None:
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)


def agree(directory: Path, published: Pipeline, run: Run, patch: pytest.MonkeyPatch) -> float:
    """All of a drawing, and how far it is off at most."""
    x_t = noise_of(12345, torch.empty(1, *run.module.image_shape))
    drawn = ours(run, x_t)
    expected = theirs(directory, published.kind, run.module.schedule.betas, x_t, patch)
    assert len(drawn) == len(expected) == STEPS + 1
    assert all(float(x.std()) > 0.1 for x in drawn)
    assert float((drawn[-1] - drawn[-2]).abs().max()) > 0.01
    for here, there in zip(drawn, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=1e-4)
    return max(float((here - there).abs().max()) for here, there in zip(drawn, expected, strict=True))


@pytest.mark.parametrize("name", first_everyday(list(IMPORTED)))
def test_a_published_pipeline_draws_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    published = IMPORTED[name]
    directory = publish(published, tmp_path / "hub")
    run = load(import_pipeline(directory, tmp_path / "run"))
    goes_back(run.module.network, narrow(published.unet))
    record_property("off by", agree(directory, published, run, monkeypatch))


def goes_back(network: UNet, config: dict[str, Any]) -> None:
    """To a configuration of the same network there, which comes here again as the same."""
    stated, weights = unet_to_diffusers(network)
    for key in ("block_out_channels", "down_block_types", "up_block_types", "norm_eps", "norm_num_groups"):
        assert list_of(stated[key]) == list_of(config[key])
    with torch.device("meta"):
        expected = UNet2DModel.from_config(config).state_dict()
    assert {key: one.shape for key, one in weights.items()} == {k: one.shape for k, one in expected.items()}
    back = unet_from_diffusers(stated, weights).state_dict()
    for key, weight in network.state_dict().items():
        assert torch.equal(back[key], weight), key


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("name", NOT_IMPORTED)
def test_what_is_other_mathematics_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    published = NOT_IMPORTED[name]
    directory = publish(published, tmp_path / "hub", weights=False)
    (directory / "unet").mkdir(exist_ok=True)
    (directory / "unet" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=published.refused):
        import_pipeline(directory, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_published_networks_have_as_many_parameters_here() -> None:
    """At full size; nothing is allocated."""
    for name, published in IMPORTED.items():
        if published.parameters is not None:
            with torch.device("meta"):
                network = UNet(**unet_settings(published.unet))
            assert sum(one.numel() for one in network.parameters()) == published.parameters, name


SETTINGS = {
    "a wider range of x_0": {"clip_sample_range": 2.5},
    "x_0 as it is": {"clip_sample": False},
    "steps that end at the last": {"timestep_spacing": "trailing"},
    "betas that are listed": {
        "trained_betas": [0.001 + 0.0004 * t for t in range(200)], "num_train_timesteps": 200,
    },
    "an end of zero SNR": {
        "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing",
        "beta_schedule": "scaled_linear",
    },
    "steps from the first to the last": {"timestep_spacing": "linspace"},  # DDIM's are not those it steps to
}  # fmt: skip


CASES = [(kind, name) for name in SETTINGS for kind in ("DDPMScheduler", "DDIMScheduler")][:-1]


@pytest.mark.parametrize("case", first_everyday(CASES), ids=" ".join)
def test_what_a_scheduler_states_is_followed(
    case: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name = case
    published = IMPORTED["diffusers' own tests"]
    scheduler = {**published.scheduler, "_class_name": kind, **SETTINGS[name]}
    published = published._replace(kind="DDPMPipeline", scheduler=scheduler)
    directory = publish(published, tmp_path / "hub")
    agree(directory, published, load(import_pipeline(directory, tmp_path / "run")), monkeypatch)


def test_a_clip_of_its_own_range_goes_back(tmp_path: Path) -> None:
    published = IMPORTED["diffusers' own tests"]
    published = published._replace(scheduler={**published.scheduler, "clip_sample_range": 2.5})
    run = import_pipeline(publish(published, tmp_path / "hub"), tmp_path / "run")
    assert load(run).config["clip_x_0"] == 2.5
    stated = json.loads(
        (export_run(run, tmp_path / "out") / "scheduler" / "scheduler_config.json").read_text()
    )
    assert (stated["clip_sample"], stated["clip_sample_range"]) == (True, 2.5)


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_a_scheduler_leaves_out_means_what_it_means_there(kind: str) -> None:
    defaults = {
        name: one.default for name, one in inspect.signature(getattr(diffusers, kind)).parameters.items()
    }
    for key, value in complete(kind, {}).items():
        if key not in ("variance_type", "clip_sample"):  # which not every one has
            assert defaults.get(key, value) == value, key
    assert complete(kind, {})["clip_sample"] is defaults.get("clip_sample", False)


def schedule(published: Pipeline, directory: Path, pipeline: str, kind: str, **settings: Any) -> Path:
    """The pipeline with another scheduler."""
    stated = {**published.scheduler, "_class_name": kind, **settings}
    return publish(published._replace(kind=pipeline, scheduler=stated), directory)


@pytest.mark.parametrize(
    ("kind", "settings", "sampler"),
    [
        ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}, {"spacing": "uniform", "eta": None}),
        ("EulerAncestralDiscreteScheduler", {}, {"spacing": "leading", "eta": 1.0}),
        ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, {"spacing": "karras"}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {"stochastic": True}),
    ],
)
def test_a_scheduler_in_sigma_becomes_the_same_method_here(
    kind: str, settings: dict[str, Any], sampler: dict[str, Any], tmp_path: Path
) -> None:
    """`clip_sample` still stands in it, of the DDPMScheduler that it was made of; only Heun's heeds it."""
    directory = schedule(IMPORTED["diffusers' own tests"], tmp_path / "hub", "DDPMPipeline", kind, **settings)
    run = load(import_pipeline(directory, tmp_path / "run"))
    assert {key: run.config["sampler"].get(key) for key in sampler} == sampler
    assert run.config["clip_x_0"] is (kind == "HeunDiscreteScheduler")


def test_settings_that_no_sampler_has_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = IMPORTED["diffusers' own tests"]
    settings = {"set_alpha_to_one": False, "steps_offset": 1}
    directory = schedule(own, tmp_path / "hub", "DDPMPipeline", "DDIMScheduler", **settings)
    with caplog.at_level(logging.WARNING):
        said = import_model(directory, tmp_path / "run")
    assert "sampler=DDIM" in said
    assert (
        "DDIMScheduler states set_alpha_to_one=False, steps_offset=1, which no sampler here has"
        in caplog.text
    )


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_of_what_diffusers_writes_itself_nothing_is_told(kind: str) -> None:
    written = json.loads(getattr(diffusers, kind)().to_json_string())
    assert not unfollowed(kind, complete(kind, written))


def test_a_scheduler_heeds_its_own_settings_alone() -> None:
    """A DDIMPipeline makes a DDIMScheduler of another one, in whose configuration more may stand."""
    given = complete("DDIMScheduler", {"use_karras_sigmas": True, "use_flow_sigmas": True})
    assert parts("DDIMScheduler", given)[0]["sampler"]["spacing"] == "leading"
    solver = "DPMSolverMultistepScheduler"
    assert unfollowed(solver, complete(solver, {"lambda_min_clipped": -5.1})) == ["lambda_min_clipped=-5.1"]
    euler = "EulerDiscreteScheduler"
    assert unfollowed(euler, complete(euler, {"sigma_max": 80.0})) == ["sigma_max=80.0"]


@pytest.mark.parametrize(
    "kind", ["DDIMScheduler", "HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler", *WITHOUT_LOWEST]
)
def test_the_steps_that_a_scheduler_visits_are_visited(kind: str) -> None:
    """Those of multistep solvers within one."""
    for spacing in ("trailing",) if kind == "DDIMScheduler" else ("linspace", "trailing"):
        stated = {"timestep_spacing": spacing}
        scheduler = getattr(diffusers, kind)(**stated)
        scheduler.set_timesteps(10)
        theirs = sorted({float(t) for t in scheduler.timesteps})
        config, _ = parts(kind, complete(kind, stated))
        sampler = targets.build("sampler", {**config["sampler"], "num_steps": 10})
        visited = sampler.spacing.steps(linear(1000)).tolist()
        assert visited == pytest.approx(theirs, abs=1.0 if kind in WITHOUT_LOWEST else 0.51)


def test_a_scheduler_of_other_steps_is_refused_with_the_way_out(tmp_path: Path) -> None:
    own = IMPORTED["diffusers' own tests"]
    directory = schedule(own, tmp_path / "hub", "DDPMPipeline", "UniPCMultistepScheduler")
    with pytest.raises(
        ValueError, match="UniPCMultistepScheduler, whose steps no sampler here takes; with DDIM"
    ):
        import_pipeline(directory, tmp_path / "run")
    index = directory / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "DDIMPipeline"}))
    run = load(import_pipeline(directory, tmp_path / "run"))
    assert run.config["sampler"]["_target_"].endswith(".DDIM")


def test_what_draws_latents_is_not_imported_with_its_decoder(tmp_path: Path) -> None:
    published = IMPORTED["teticio/audio-diffusion-256"]
    published = published._replace(others={**published.others, "vqvae": ["diffusers", "AutoencoderKL"]})
    with pytest.raises(ValueError, match="draws latents, and is not imported with the AutoencoderKL"):
        import_pipeline(publish(published, tmp_path / "hub", weights=False), tmp_path / "run")
