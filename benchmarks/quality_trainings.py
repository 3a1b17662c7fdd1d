"""How each library of `quality.py` trains and draws: as it comes, in a process of its own, by one clock."""

import importlib
import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.errors import UsageError
from ddpm.runtime.device import default_device
from ddpm.runtime.writing import whole, write_whole

ROOT = Path(__file__).parents[1]

SIZE = 32
PICTURES = {".jpg", ".jpeg", ".png"}

PIECE = 100
"""Images that are drawn or judged at once, and kept."""

SAVED_EVERY = 300.0
"""Seconds of training after which the state of a peer is kept."""


@dataclass(frozen=True)
class Job:
    """What a process of its own is started for.

    Attributes:
        what: "train" or "draw".
        library: one of `LIBRARIES`.
        seed: of the training, and of the samples.
        folder: of this training.
        pictures: the folder to train on.
        minutes: of training, at which weights are kept, rising.
        stage: the minutes whose weights are drawn from.
        batch: images a step; None is the library's own.
        samples, steps: images, and steps of DDIM.
    """

    what: str
    library: str
    seed: int
    folder: str
    pictures: str
    minutes: list[float]
    stage: float
    batch: int | None
    samples: int
    steps: int

    def weights(self, minutes: float) -> Path:
        return Path(self.folder) / f"{minutes:g}.ckpt"

    @property
    def drawn(self) -> Path:
        return Path(self.folder) / f"samples_{self.stage:g}"


# The pictures


def parts(folder: Path) -> tuple[Path, Path | None]:
    """The folder to train on, and that of held-out pictures."""
    train, test = folder / "train", folder / "test"
    return (train if train.is_dir() else folder).resolve(), test.resolve() if test.is_dir() else None


def files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if len(found) < 100:
        raise UsageError(f"{folder}: {len(found)} pictures are there, and at least 100 are needed")
    return found


def picture(path: Path) -> np.ndarray:
    """uint8 [3, 32, 32]."""
    with Image.open(path) as image:
        if image.size != (SIZE, SIZE):
            raise UsageError(f"{path}: is {image.size[0]}x{image.size[1]}, and all must be {SIZE}x{SIZE}")
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def some(found: Sequence[Path], n: int) -> Tensor:
    """n of them at random, uint8 [n, 3, 32, 32]."""
    chosen = np.random.RandomState(0).permutation(len(found))[:n]
    return torch.from_numpy(np.stack([picture(found[i]) for i in chosen]))


# The networks


def our_network() -> nn.Module:
    """What `OURS` builds."""
    from ddpm.networks import UNet

    return UNet(
        3,
        3,
        channels=32,
        multipliers=(1, 2, 2),
        blocks=2,
        attention_levels=(1, 2),
        norm_groups=8,
        dropout=0.1,
    )


def network_of_diffusers() -> nn.Module:
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        norm_num_groups=8,
    )


def network_of_denoising_diffusion() -> nn.Module:
    with_torchvision()
    from denoising_diffusion_pytorch import Unet

    return Unet(36, dim_mults=(1, 2, 2))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ddpm": our_network,
    "diffusers": network_of_diffusers,
    "denoising_diffusion_pytorch": network_of_denoising_diffusion,
}

BATCHES = {"ddpm": 64, "diffusers": 16, "denoising_diffusion_pytorch": 16}
"""Images a step, as each one comes."""


# The clock


class Clock:
    """Seconds of training over all starts; what is done between `begin` and the next step apart from it, such
    as saving, is not counted.

    Args:
        folder: where it says how far it is, in clock.json.
        minutes: at which weights are kept, rising.
        seconds: of earlier starts.
    """

    def __init__(self, folder: Path, minutes: Sequence[float], seconds: float = 0.0):
        self.folder, self.minutes, self.seconds = folder, minutes, seconds
        self._mark = self._written = time.monotonic()

    def begin(self) -> None:
        self._mark = time.monotonic()

    def passed(self, step: int, keep: Callable[[Path], None]) -> bool:
        """To be called after each step.

        Args:
            step: how many there were.
            keep: writes the averaged weights to a file.

        Returns:
            whether all stages are through.
        """
        now = time.monotonic()
        self.seconds += now - self._mark
        for minutes in self.minutes:
            if self.seconds >= 60 * minutes and not through(self.folder, minutes):
                keep(self.folder / f"{minutes:g}.ckpt")
                write_whole(
                    self.folder / f"{minutes:g}.json", json.dumps({"seconds": self.seconds, "step": step})
                )
        if now - self._written > 2:
            self._written = now
            write_whole(self.folder / "clock.json", json.dumps({"seconds": self.seconds, "step": step}))
        self.begin()
        return all(through(self.folder, minutes) for minutes in self.minutes[-1:])

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done within the block is not counted."""
        self.seconds += time.monotonic() - self._mark
        yield
        self.begin()


def through(folder: Path, minutes: float) -> bool:
    return (folder / f"{minutes:g}.json").exists()


class Stages(Callback):
    """The clock as a callback of `train.py`, kept in the run's checkpoints.

    Args:
        folder: where weights are kept.
        minutes: at which.
    """

    def __init__(self, folder: str, minutes: Sequence[float]):
        self.clock = Clock(Path(folder), list(minutes))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.begin()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.clock.passed(trainer.global_step, trainer.save_checkpoint):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.clock.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock.seconds = state_dict["seconds"]


# Training and drawing, in a process of their own


class Asked:
    """Whether this process was asked to end; workers of a DataLoader that it starts do not mind."""

    def __init__(self) -> None:
        self.by: int | None = None
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._hear)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self.by = signum


def work(job: Job) -> None:
    """Do it, in this process."""
    torch.manual_seed(job.seed)
    if job.what == "train":
        TRAININGS[job.library](job)
    else:
        with torch.inference_mode():
            draw = DRAWINGS[job.library](job)
            in_pieces(job.drawn, job.samples, lambda first, last: draw(first, last).cpu().numpy())


OURS = (
    "data=folder", "data.image_size=32", "model=small", "model.channels=32", "model.norm_groups=8",
    # the clock counts training only: nothing is held out, and no grids are drawn
    "data.validation_fraction=0", "trainer.limit_val_batches=0", "callbacks.samples.final=false",
    "callbacks.samples.every_n_steps=1000000", "callbacks.checkpoints.every_n_minutes=5",
    "trainer.devices=1", "logger=none", "allow_targets=[quality_trainings]",
    "callbacks.stages._target_=quality_trainings.Stages",
)  # fmt: skip


def train_ours(job: Job) -> None:
    """Become `train.py`."""
    command = [
        sys.executable, str(ROOT / "train.py"), *OURS, f"seed={job.seed}", f'data.path="{job.pictures}"',
        f"data.batch_size={job.batch or BATCHES['ddpm']}", f'callbacks.stages.folder="{job.folder}"',
        f"callbacks.stages.minutes={json.dumps(job.minutes)}".replace(" ", ""),
        f"hydra.run.dir={job.folder}/run",
    ]  # fmt: skip
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.execv(sys.executable, command)


def draw_ours(job: Job) -> Callable[[int, int], Tensor]:
    import ddpm
    from ddpm.diffusion.samplers import DDIM
    from ddpm.sampling.drawing import Drawing
    from ddpm.sampling.figures import to_uint8

    module = ddpm.load(job.weights(job.stage)).module
    drawing = Drawing(module, seed=job.seed, sampler=DDIM(job.steps), weights="ema")
    return lambda first, last: to_uint8(drawing(range(first, last)))


class Pictures(torch.utils.data.Dataset[Tensor]):
    """Files as the example of diffusers reads them, one after the other: float32 in [-1, 1]."""

    def __init__(self, folder: Path):
        self.files = files(folder)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(picture(self.files[index]).copy()).float() / 127.5 - 1


def train_diffusers(job: Job) -> None:
    """The loop of the example of unconditional training, with its defaults."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    asked, folder = Asked(), Path(job.folder)
    accelerator = Accelerator(mixed_precision="no", gradient_accumulation_steps=1)
    model = network_of_diffusers()
    average = EMAModel(
        model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75,
        model_cls=type(model), model_config=model.config,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    batch = job.batch or BATCHES["diffusers"]
    loader = torch.utils.data.DataLoader(Pictures(Path(job.pictures)), batch_size=batch, shuffle=True)
    rate = get_scheduler(
        "cosine", optimizer, num_warmup_steps=500, num_training_steps=100 * len(loader)
    )  # of its 100 epochs
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    model, optimizer, loader, rate = accelerator.prepare(model, optimizer, loader, rate)
    average.to(accelerator.device)
    parts = {"model": model, "optimizer": optimizer, "rate": rate, "average": average}
    step, seconds, state = 0, 0.0, folder / "state.pt"
    if state.exists():
        found = torch.load(state, map_location=accelerator.device, weights_only=True)
        step, seconds = found["step"], found["seconds"]
        for name, part in parts.items():
            part.load_state_dict(found[name])
        torch.manual_seed(job.seed + step)  # other noise than at the beginning

    def save() -> None:
        kept = {name: part.state_dict() for name, part in parts.items()}
        with whole(state) as temporary:
            torch.save({"step": step, "seconds": clock.seconds, **kept}, temporary)

    def keep(path: Path) -> None:
        names = [name for name, _ in model.named_parameters()]
        with whole(path) as temporary:
            torch.save(dict(zip(names, average.shadow_params, strict=True)), temporary)

    clock = Clock(folder, job.minutes, seconds)
    saved = clock.seconds
    clock.begin()
    while True:
        model.train()
        for x_0 in loader:
            eps = torch.randn(x_0.shape, device=x_0.device)
            t = torch.randint(0, scheduler.config.num_train_timesteps, (len(x_0),), device=x_0.device).long()
            noisy = scheduler.add_noise(x_0, eps, t)
            with accelerator.accumulate(model):
                loss = F.mse_loss(model(noisy, t).sample.float(), eps.float())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                average.step(model.parameters())
                step += 1
            loss.detach().item()  # its progress bar shows it
            done = clock.passed(step, keep)
            if done or asked.by or clock.seconds - saved > SAVED_EVERY:
                saved = clock.seconds
                with clock.stopped():
                    save()
                if done or asked.by:
                    sys.exit(0 if done else 128 + (asked.by or 0))


def draw_diffusers(job: Job) -> Callable[[int, int], Tensor]:
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler

    model = network_of_diffusers()
    model.load_state_dict(torch.load(job.weights(job.stage), map_location="cpu", weights_only=True))
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    pipeline = DDIMPipeline(model, DDIMScheduler.from_config(scheduler.config)).to(default_device())
    pipeline.set_progress_bar_config(disable=True)

    def draw(first: int, last: int) -> Tensor:
        generator = torch.Generator().manual_seed(job.seed * 1_000_000 + first)
        images = pipeline(
            last - first, generator=generator, num_inference_steps=job.steps, output_type="np"
        ).images
        return torch.from_numpy((images * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)

    return draw


class Through(Exception):  # noqa: N818 - it is no error
    """Leaves the loop of a trainer that knows of no time."""


def gaussian_diffusion(job: Job) -> nn.Module:
    network = network_of_denoising_diffusion()
    from denoising_diffusion_pytorch import GaussianDiffusion

    return GaussianDiffusion(network, image_size=SIZE, sampling_timesteps=job.steps)


def train_denoising_diffusion(job: Job) -> None:
    """Its Trainer as it comes: the clock looks on where it asks for the next batch."""
    asked, folder = Asked(), Path(job.folder)
    model = gaussian_diffusion(job)
    from denoising_diffusion_pytorch import Trainer

    files(Path(job.pictures))
    batch = job.batch or BATCHES["denoising_diffusion_pytorch"]
    never = 10**9
    trainer = Trainer(
        model, job.pictures, train_batch_size=batch, train_num_steps=never, save_and_sample_every=never,
        calculate_fid=False, results_folder=str(folder),
    )  # fmt: skip
    state, seconds = folder / "seconds.json", 0.0
    if state.exists():
        trainer.load("last")
        seconds = json.loads(state.read_text())["seconds"]
        torch.manual_seed(job.seed + trainer.step)
    clock = Clock(folder, job.minutes, seconds)

    def save() -> None:
        trainer.save("new")
        (folder / "model-new.pt").replace(folder / "model-last.pt")
        write_whole(state, json.dumps({"seconds": clock.seconds}))

    def keep(path: Path) -> None:
        with whole(path) as temporary:
            torch.save(trainer.ema.ema_model.state_dict(), temporary)

    def timed(batches: Iterator[Tensor]) -> Iterator[Tensor]:
        saved = clock.seconds
        clock.begin()
        for batch in batches:
            yield batch  # and it comes back after the step
            done = clock.passed(trainer.step, keep)
            if done or asked.by or clock.seconds - saved > SAVED_EVERY:
                saved = clock.seconds
                with clock.stopped():
                    save()
                if done or asked.by:
                    raise Through

    trainer.dl = timed(trainer.dl)
    try:
        trainer.train()
    except Through:
        sys.exit(128 + asked.by if asked.by else 0)


def draw_denoising_diffusion(job: Job) -> Callable[[int, int], Tensor]:
    model = gaussian_diffusion(job)
    model.load_state_dict(torch.load(job.weights(job.stage), map_location="cpu", weights_only=True))
    model.to(default_device()).eval()

    def draw(first: int, last: int) -> Tensor:
        torch.manual_seed(job.seed * 1_000_000 + first)
        images: Tensor = model.sample(batch_size=last - first)
        return (images * 255).round().clamp(0, 255).to(torch.uint8)

    return draw


def with_torchvision() -> None:
    """Let `import torchvision` work where it is not there, or of another build than torch: with what the data
    set of denoising_diffusion_pytorch uses, for pictures that have their size already.
    """
    try:
        importlib.import_module("torchvision")
        return
    except (ImportError, RuntimeError):
        pass
    transforms: Any = types.ModuleType("torchvision.transforms")
    transforms.Compose = lambda each: lambda image: _through_all(each, image)
    transforms.Lambda = lambda function: function
    transforms.Resize = transforms.CenterCrop = lambda size: lambda image: image
    transforms.RandomHorizontalFlip = lambda: _mirrored_or_not
    transforms.ToTensor = lambda: (
        lambda image: torch.from_numpy(np.array(image, np.uint8)).permute(2, 0, 1).contiguous().float() / 255
    )
    package: Any = types.ModuleType("torchvision")
    package.transforms, package.utils = transforms, types.ModuleType("torchvision.utils")
    sys.modules |= {
        "torchvision": package, "torchvision.transforms": transforms, "torchvision.utils": package.utils
    }  # fmt: skip


def _through_all(each: Sequence[Callable[[Any], Any]], image: Any) -> Any:
    for one in each:
        image = one(image)
    return image


def _mirrored_or_not(image: Image.Image) -> Image.Image:
    mirrored = bool(torch.rand(1) < 0.5)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image


TRAININGS = {
    "ddpm": train_ours,
    "diffusers": train_diffusers,
    "denoising_diffusion_pytorch": train_denoising_diffusion,
}
DRAWINGS = {
    "ddpm": draw_ours,
    "diffusers": draw_diffusers,
    "denoising_diffusion_pytorch": draw_denoising_diffusion,
}


# What is kept


def in_pieces(folder: Path, n: int, make: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Arrays for the images from 0 to n, some at a time, each in a file; what is there is not made again."""
    found = []
    for first in range(0, n, PIECE):
        path = folder / f"{first:06}.npy"
        if not path.exists():
            made = make(first, min(first + PIECE, n))
            with whole(path) as temporary:
                np.save(temporary, made)
        found.append(np.load(path))
    return np.concatenate(found)


if __name__ == "__main__":
    work(Job(**json.loads(sys.argv[1])))
