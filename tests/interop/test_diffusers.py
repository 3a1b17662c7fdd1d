"""Whole runs to and from directories of DDPMPipeline."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import first_everyday
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.schedulers import scheduling_ddpm
from hydra import compose, initialize_config_dir
from published import LINEAR, PUBLISHED, awake
from torch import Tensor

from ddpm.app.run_directory import register_resolver
from ddpm.diffusion.objectives import X0, Epsilon, V
from ddpm.diffusion.variances import FixedLarge, FixedSmall
from ddpm.diffusion.weighting import Hybrid, Simple
from ddpm.interop.checkpoints_of_others import import_model
from ddpm.interop.diffusers import export_run, import_pipeline
from ddpm.interop.schedulers import SCHEDULER_DEFAULTS
from ddpm.networks import UNet
from ddpm.run import Run, load
from ddpm.sampling.figures import to_uint8
from ddpm.training.checkpoints import AtomicCheckpointIO

pytestmark = pytest.mark.usefixtures("seeded")

MakeRun = Callable[..., Path]
Publish = Callable[..., Path]
CONF = Path(__file__).parents[2] / "conf"
PUBLISHED_SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    **LINEAR,
    "variance_type": "fixed_large",
}


MODEL = {
    "_target_": "ddpm.networks.unet.UNet",
    "channels": 16,
    "multipliers": [1, 2],
    "blocks": 1,
    "norm_groups": 4,
}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes the checkpoint of a run whose averaged weights are those of an awake U-Net."""

    def make(
        objective: str = "Epsilon",
        variance: str = "FixedLarge",
        *,
        schedule: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        classes: list[str] | None = None,
        **config: Any,
    ) -> Path:
        model = {**MODEL, **(model or {})}
        options = {name: value for name, value in model.items() if name != "_target_"}
        learned = variance in ("Learned", "LearnedRange")
        num_classes = None if classes is None else len(classes)
        averaged = awake(UNet(3, 6 if learned else 3, num_classes=num_classes, **options)).state_dict()
        raw = {f"network.{name}": torch.zeros_like(weight) for name, weight in averaged.items()}
        checkpoint = {
            "state_dict": raw,
            "ema": {"num_updates": 7, "parameters": averaged},
            "config": {
                "schedule": schedule or {"_target_": "ddpm.diffusion.schedules.cosine", "num_timesteps": 40},
                "objective": {"_target_": f"ddpm.diffusion.objectives.{objective}"},
                "variance": {"_target_": f"ddpm.diffusion.variances.{variance}"},
                "weighting": {"_target_": f"ddpm.diffusion.weighting.{'Hybrid' if learned else 'Simple'}"},
                "timesteps": {"_target_": "ddpm.diffusion.timesteps.Uniform"},
                "sampler": {"_target_": "ddpm.diffusion.samplers.ancestral.Ancestral"},
                "guidance": {"_target_": "ddpm.diffusion.guidance.NoGuidance"},
                "optimizer": {"_target_": "torch.optim.Adam", "lr": 2e-4},
                "model": model,
                "clip_x_0": True,
                "conditional": classes is not None,
                "ema": {"_target_": "ddpm.training.ema.EMA", "decay": 0.99},
                "seed": 0,
                **config,
            },
            "data": {"image_shape": [3, 8, 12], "classes": classes},
            "global_step": 7,
        }
        run = tmp_path / "run"
        AtomicCheckpointIO().save_checkpoint(checkpoint, run / "checkpoints" / "last.ckpt")
        return run

    return make


def noise_of(t: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(t))


def their_images(pipeline: DDPMPipeline, x_t: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The loop of DDPMPipeline, with noise that is given."""
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(len(scheduler.betas))
    with torch.inference_mode():
        for t in scheduler.timesteps:
            given = noise_of(int(t), x_t)
            monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, given=given, **__: given)
            x_t = scheduler.step(pipeline.unet(x_t, t).sample, t, x_t).prev_sample
    return x_t


def our_images(run: Run, x_t: Tensor) -> Tensor:
    with torch.inference_mode(), run.module.ema.swapped_in():
        return run.module.sampler(run.module.denoiser(), run.module.schedule, x_t, noise=noise_of)


def same_images(run: Run, pipeline: DDPMPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    x_t = torch.randn(2, *run.module.image_shape)
    ours = our_images(run, x_t)
    theirs = their_images(pipeline, x_t, monkeypatch)
    assert (ours.abs() < 0.99).float().mean() > 0.1  # not all black and white
    difference = to_uint8(ours).int() - to_uint8(theirs).int()
    assert difference.abs().max() <= 1


def test_scheduler_defaults_are_those_of_diffusers() -> None:
    parameters = inspect.signature(DDPMScheduler).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == SCHEDULER_DEFAULTS


@pytest.mark.parametrize("objective", first_everyday(["Epsilon", "X0", "V"]))
@pytest.mark.parametrize("variance", ["FixedSmall", "FixedLarge", "LearnedRange"])
def test_an_exported_run_samples_the_same_images(
    objective: str, variance: str, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(objective, variance)
    pipeline = DDPMPipeline.from_pretrained(export_run(run, tmp_path / "out"))
    same_images(load(run), pipeline, monkeypatch)


@pytest.mark.slow
def test_an_exported_run_of_1000_steps_samples_the_same_images(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(schedule={"_target_": "ddpm.diffusion.schedules.linear"})
    same_images(load(run), DDPMPipeline.from_pretrained(export_run(run, tmp_path / "out")), monkeypatch)


def test_an_exported_run_without_clipping(make_run: MakeRun, tmp_path: Path) -> None:
    out = export_run(make_run(clip_x_0=False), tmp_path / "out")
    assert DDPMPipeline.from_pretrained(out).scheduler.config.clip_sample is False


def test_an_exported_pipeline_is_whole(make_run: MakeRun, tmp_path: Path) -> None:
    """It samples by itself, and diffusers writes the same configuration back."""
    run = make_run()
    out = export_run(run / "checkpoints" / "last.ckpt", tmp_path / "out")
    pipeline = DDPMPipeline.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=2, output_type="pt").images
    assert images.shape == (2, 3, 8, 12)
    averaged = load(run).module.ema.state_dict()["parameters"]
    assert torch.equal(pipeline.unet.conv_in.weight, averaged["conv_in.weight"])
    pipeline.save_pretrained(tmp_path / "again")
    for file in ("unet/config.json", "scheduler/scheduler_config.json"):
        ours, theirs = (json.loads((folder / file).read_text()) for folder in (out, tmp_path / "again"))
        hidden = {"_diffusers_version", "_name_or_path"}
        assert {k: ours[k] for k in ours.keys() - hidden} == {k: theirs[k] for k in theirs.keys() - hidden}


def test_export_and_import_end_where_they_began(make_run: MakeRun, tmp_path: Path) -> None:
    for schedule in (
        {"_target_": "ddpm.diffusion.schedules.linear", "num_timesteps": 300, "beta_end": 0.03},
        {"_target_": "ddpm.diffusion.schedules.cosine", "num_timesteps": 4000},
    ):
        run = make_run(schedule=schedule, model={"dropout": 0.25})
        name = schedule["_target_"].rpartition(".")[2]
        back = load(import_pipeline(export_run(run, tmp_path / f"{name}-out"), tmp_path / f"{name}-back"))
        before = load(run)
        for key, weight in before.module.ema.state_dict()["parameters"].items():
            assert torch.equal(back.module.network.state_dict()[key], weight), key
            assert torch.equal(back.module.ema.state_dict()["parameters"][key], weight), key
        torch.testing.assert_close(back.module.schedule.betas, before.module.schedule.betas)
        for part in ("objective", "variance"):
            assert type(getattr(back.module, part)) is type(getattr(before.module, part))
        assert back.module.image_shape == (3, 8, 12)
        assert back.module.network.dropout == 0.25
        assert back.step == 0


def test_a_conditional_run_is_exported_with_the_names_of_its_classes(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """diffusers keeps them in the network's configuration; a DDPMPipeline does not know them."""
    run, names = make_run(classes=["cat", "dog", "über"]), {"0": "cat", "1": "dog", "2": "über"}
    out = export_run(run, tmp_path / "out")
    assert "cannot choose a class" in caplog.text
    assert "from 0 to 2 (3 for no class" in caplog.text
    pipeline = DDPMPipeline.from_pretrained(out)
    assert pipeline.unet.config["id2label"] == names
    ours, theirs = load(run).module, pipeline.unet
    x, t = torch.randn(4, 3, 8, 12), torch.arange(4)
    with torch.inference_mode(), ours.ema.swapped_in():
        expected = ours.network(x, t, torch.tensor([0, 1, 2, -1]))
        output = theirs(x, t, class_labels=torch.arange(4)).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="class_labels"):
        pipeline(num_inference_steps=2)
    theirs.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["id2label"] == names


def test_a_conditional_run_goes_there_and_back(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(classes=["cat", "dog", "über"])
    back = load(import_pipeline(export_run(run, tmp_path / "out"), tmp_path / "back"))
    before = load(run).module.ema.state_dict()["parameters"]
    assert back.module.classes == ["cat", "dog", "über"]
    assert back.config["conditional"] is True
    for key, weight in back.module.network.state_dict().items():
        assert torch.equal(before[key], weight), key
    assert "conditional: true" in (tmp_path / "back" / "config.yaml").read_text()


@pytest.mark.parametrize("names", [{"1": "dog"}, None, ["cat"]])
def test_classes_without_names_are_called_by_their_numbers(
    names: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    out = export_run(make_run(classes=["cat", "dog"]), tmp_path / "out")
    edit(out / "unet" / "config.json", id2label=names)
    known = "dog" if isinstance(names, dict) else "1"
    assert load(import_pipeline(out, tmp_path / "back")).module.classes == ["0", known]


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Writes a pipeline as the first were published: one folder, pickled weights, old names in attention."""

    def write(unet: dict[str, Any], **scheduler: Any) -> Path:
        directory = tmp_path / "pipeline"
        directory.mkdir()
        index = {
            "_class_name": "DDPMPipeline",
            "_diffusers_version": "0.0.4",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        }
        scheduler = {**PUBLISHED_SCHEDULER, **scheduler}
        for name, content in (("model_index", index), ("config", unet), ("scheduler_config", scheduler)):
            (directory / f"{name}.json").write_text(json.dumps(content))
        weights = awake(UNet2DModel.from_config(unet)).state_dict()
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            weights = {key.replace(f".{new}.", f".{old}."): weight for key, weight in weights.items()}
        torch.save(weights, directory / "diffusion_pytorch_model.bin")
        return directory

    return write


SHORT = {"num_train_timesteps": 10, "beta_end": 0.8}
"""A chain that ends near noise all the same."""


@pytest.mark.slow
@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
def test_published_pipelines(
    published: dict[str, Any], publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full width, on smaller images."""
    directory = publish({**published, "sample_size": 32}, **SHORT)
    run = load(import_pipeline(directory, tmp_path / "run"))
    same_images(run, DDPMPipeline.from_pretrained(directory, use_safetensors=False), monkeypatch)


@pytest.fixture
def pipeline_dir(publish: Publish) -> Path:
    """Of a small network."""
    kinds = ["DownBlock2D", "AttnDownBlock2D"]
    small = {
        "sample_size": 16,
        "block_out_channels": [32, 32],
        "down_block_types": kinds,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
    }
    return publish(small)


def edit(file: Path, **changes: Any) -> None:
    for directory in file.parents[:2]:
        (directory / "SHA256SUMS").unlink(missing_ok=True)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_imported_run_says_how_to_train_on(pipeline_dir: Path, tmp_path: Path) -> None:
    """config.yaml composes to the default recipe around what the pipeline says."""
    run = import_pipeline(pipeline_dir, tmp_path / "run")
    (run / "recipe.yaml").write_text(
        "defaults: [train, {override data: folder}, {override experiment: null}, _self_]"
    )
    register_resolver()
    overrides = [f"hydra.searchpath=[file://{CONF}]", "data.path=pictures"]
    with initialize_config_dir(str(run), version_base="1.3"):
        config, recipe = (compose(name, overrides=overrides) for name in ("config", "recipe"))
    said = load(run).config
    assert config.keys() == recipe.keys()
    for group in recipe:
        if group in ("schedule", "objective", "variance", "weighting", "sampler", "model", "clip_x_0"):
            assert config[group] == said[group], group
        elif group != "data":
            assert config[group] == recipe[group], group
    assert config.data == {**recipe.data, "image_size": [16, 16], "channels": 3}


@pytest.mark.parametrize(
    ("change", "part", "expected"),
    [
        ({}, "variance", FixedLarge),
        ({"variance_type": "fixed_small"}, "variance", FixedSmall),
        ({"variance_type": "fixed_small_log"}, "variance", FixedSmall),
        ({}, "weighting", Simple),
        ({}, "objective", Epsilon),
        ({"prediction_type": "sample"}, "objective", X0),
        ({"prediction_type": "v_prediction"}, "objective", V),
        ({"clip_sample": False, "clip_sample_range": 2}, "clip_x_0", bool),
        ({"clip_sample_range": 1.0}, "clip_x_0", bool),
    ],
)
def test_a_scheduler_becomes_the_parts_of_a_run(
    change: dict[str, Any], part: str, expected: type, pipeline_dir: Path, tmp_path: Path
) -> None:
    edit(pipeline_dir / "scheduler_config.json", **change)
    module = load(import_pipeline(pipeline_dir, tmp_path / "run")).module
    assert type(getattr(module, part)) is expected
    assert module.clip_x_0 is change.get("clip_sample", True)


def test_a_learned_variance_can_be_trained_on(make_run: MakeRun, tmp_path: Path) -> None:
    run = import_pipeline(export_run(make_run("V", "LearnedRange"), tmp_path / "out"), tmp_path / "back")
    assert isinstance(load(run).module.weighting, Hybrid)


BETAS = [0.0123456, 0.3, 0.02, 0.4]


@pytest.mark.parametrize(
    ("schedule", "ours"),
    [
        ({}, "linear"),
        ({"num_train_timesteps": 100, "beta_end": 0.1}, "linear"),
        ({"beta_schedule": "scaled_linear", "num_train_timesteps": 100}, "quadratic"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "cosine"),
        ({"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True}, "cosine"),
        ({"rescale_betas_zero_snr": True}, "linear"),
        ({"beta_schedule": "sigmoid", "beta_end": 0.03}, "from_file"),
        ({"beta_schedule": "laplace", "num_train_timesteps": 200}, "from_file"),
        ({"trained_betas": BETAS, "num_train_timesteps": 4}, "from_file"),
        ({"trained_betas": BETAS, "num_train_timesteps": 4, "rescale_betas_zero_snr": True}, "from_file"),
        ({"trained_betas": [*BETAS, 1.0], "num_train_timesteps": 5}, "from_file"),
        ({"trained_betas": [0.01, 0.02, 0.03], "num_train_timesteps": 3}, "linear"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else value,
)
def test_their_betas_are_our_betas(
    schedule: dict[str, Any], ours: str, pipeline_dir: Path, tmp_path: Path
) -> None:
    edit(pipeline_dir / "scheduler_config.json", prediction_type="v_prediction", **schedule)
    run = load(import_pipeline(pipeline_dir, tmp_path / "run"))
    theirs = DDPMScheduler.from_config(json.loads((pipeline_dir / "scheduler_config.json").read_text()))
    assert run.config["schedule"]["_target_"] == f"ddpm.diffusion.schedules.{ours}"
    # theirs are float32 throughout
    torch.testing.assert_close(run.module.schedule.betas.float(), theirs.betas, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"variance_type": "learned"}, "variance_type=learned"),
        ({"variance_type": "fixed_large_log"}, "variance_type=fixed_large_log"),
        ({"prediction_type": "flow"}, "prediction_type=flow"),
        ({"beta_schedule": "sine"}, "beta_schedule=sine"),
        ({"trained_betas": [0.1, 0.5, 0.2]}, "trained_betas: are 3, and num_train_timesteps=1000"),
        ({"trained_betas": [0.1, 1.5], "num_train_timesteps": 2}, "beta is 1.5 at t = 1"),
        ({"trained_betas": [0.1, 1.0], "num_train_timesteps": 2}, "prediction_type=epsilon"),
        ({"thresholding": True}, "thresholding=True"),
        ({"rescale_betas_zero_snr": True}, "prediction_type=epsilon"),
        ({"clip_sample_range": 0}, "clip_sample_range=0"),
        ({"variance_type": "learned_range"}, "out_channels=3.*variance_type=learned_range"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_scheduler_that_cannot_be_expressed_is_refused(
    change: dict[str, Any], says: str, pipeline_dir: Path, tmp_path: Path
) -> None:
    edit(pipeline_dir / "scheduler_config.json", **change)
    with pytest.raises(ValueError, match=says):
        import_pipeline(pipeline_dir, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sample_size": None}, "sample_size"),
        ({"act_fn": "relu"}, "act_fn=relu"),
    ],
)
def test_a_network_that_cannot_be_expressed_is_refused(
    change: dict[str, Any], says: str, pipeline_dir: Path, tmp_path: Path
) -> None:
    edit(pipeline_dir / "config.json", **change)
    with pytest.raises(ValueError, match=says):
        import_pipeline(pipeline_dir, tmp_path / "run")


def test_what_is_no_pipeline_is_refused(pipeline_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model_index\.json: there is no such file"):
        import_pipeline(tmp_path, tmp_path / "run")
    with pytest.raises(ValueError, match="exists already"):
        import_pipeline(pipeline_dir, pipeline_dir)
    (pipeline_dir / "diffusion_pytorch_model.bin").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"model\.bin: cannot be read"):
        import_pipeline(pipeline_dir, tmp_path / "run")
    (pipeline_dir / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        import_pipeline(pipeline_dir, tmp_path / "run")
    edit(pipeline_dir / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    with pytest.raises(ValueError, match="its scheduler is a PNDMScheduler"):
        import_pipeline(pipeline_dir, tmp_path / "run")
    edit(pipeline_dir / "model_index.json", _class_name="LDMPipeline")
    with pytest.raises(ValueError, match="is a LDMPipeline: its U-Net draws latents"):
        import_pipeline(pipeline_dir, tmp_path / "run")
    edit(pipeline_dir / "model_index.json", _class_name="UnCLIPPipeline")
    with pytest.raises(ValueError, match="is a UnCLIPPipeline, only a DDPMPipeline or DDIMPipeline or"):
        import_pipeline(pipeline_dir, tmp_path / "run")


@pytest.mark.parametrize(
    ("pipeline", "scheduler", "settings", "sampler", "clips"),
    [
        ("DDIMPipeline", "DDIMScheduler", {}, "ddim.DDIM", True),
        ("DDIMPipeline", "DDPMScheduler", {}, "ddim.DDIM", True),
        ("DDPMPipeline", "DDIMScheduler", {"clip_sample": False}, "ddim.DDIM", False),
        ("DDPMPipeline", "DPMSolverMultistepScheduler", {}, "dpm_solver.DPMSolver", False),
        ("DDPMPipeline", "DEISMultistepScheduler", {"solver_order": 3}, "deis.DEIS", False),
    ],
)
def test_a_scheduler_of_few_steps_becomes_the_nearest_sampler(
    pipeline: str, scheduler: str, settings: dict[str, Any], sampler: str, clips: bool,
    pipeline_dir: Path, tmp_path: Path,
) -> None:  # fmt: skip
    parts = {"_class_name": pipeline, "scheduler": ["diffusers", scheduler]}
    edit(pipeline_dir / "model_index.json", **parts)
    file = pipeline_dir / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": scheduler, **settings}))
    said = import_model(pipeline_dir, tmp_path / "run")
    assert f"variance=FixedSmall sampler={sampler.partition('.')[2]} clip_x_0={clips}" in said
    run = load(tmp_path / "run")
    assert run.config["sampler"]["_target_"] == f"ddpm.diffusion.samplers.{sampler}"
    assert run.config["clip_x_0"] is clips
    assert isinstance(run.module.variance, FixedSmall)
    assert "override sampler: null" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("stated", "spacing"),
    [
        ({"timestep_spacing": "trailing"}, "trailing"),
        ({"timestep_spacing": "linspace"}, "trailing"),
        ({"use_karras_sigmas": True}, "karras"),
    ],
)
def test_the_spacing_that_a_scheduler_states_is_taken(
    stated: dict[str, Any], spacing: str, pipeline_dir: Path, tmp_path: Path
) -> None:
    edit(pipeline_dir / "model_index.json", scheduler=["diffusers", "DEISMultistepScheduler"])
    file = pipeline_dir / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "DEISMultistepScheduler", **stated}))
    import_model(pipeline_dir, tmp_path / "run")
    sampler = load(tmp_path / "run").config["sampler"]
    assert (sampler["spacing"], sampler["order"]) == (spacing, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"objective": "PosteriorMean"}, "objective PosteriorMean"),
        ({"variance": "Learned"}, "variance Learned"),
        ({"model": {"multipliers": [2, 2]}}, "model.multipliers"),
        ({"schedule": {"_target_": "mine.linear"}}, "schedule mine.linear"),
        ({"schedule": {"_target_": "pathlib.Path"}}, "schedule pathlib.Path"),
        ({"schedule": {"_target_": "ddpm.diffusion.schedules.NoiseSchedule"}}, "schedule ddpm"),
    ],
)
def test_a_run_that_cannot_be_expressed_is_refused(
    arguments: dict[str, Any], says: str, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(**arguments)
    with pytest.raises(ValueError, match=says):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_network_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    file = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["config"]["model"]["_target_"] = "ddpm.networks.dit.DiT"
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match="DiT"):
        export_run(run, tmp_path / "out")


def test_nothing_is_overwritten(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="exists already"):
        export_run(make_run(), tmp_path / "out")
    with pytest.raises(ValueError, match="no such run directory"):
        export_run(tmp_path / "nowhere", tmp_path / "new")
