"""Training steps and sampling runs of this project and of others, each a function without arguments.

All get the same pictures, batch and network sizes; everything else is as its owners write it.
"""

import importlib
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.diffusion import Denoiser, Parametrization, q_sample
from ddpm.diffusion.objectives import Epsilon
from ddpm.diffusion.samplers import Ancestral
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.variances import FixedLarge
from ddpm.interop.unet2d import unet_to_diffusers
from ddpm.networks import UNet
from ddpm.random import Purpose, Stream
from ddpm.runtime.memory import keep_freed_memory
from ddpm.training.ema import EMA
from ddpm.training.optimizers import ADAM

Run = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        network: "tiny" for grey pictures of 8x8, or "cifar10" for colour pictures of 32x32.
        batch: pictures a step, or drawn at once.
        device: "cpu" or "cuda".
        bf16, channels_last, compiled: how the network computes.
        graphs: started by CUDA graphs, where it is compiled.
        keep_memory: let the process keep what it frees (`keep_freed_memory`), on a CPU.
        steps: of the chain, when sampling.
    """

    network: str
    batch: int
    device: str = "cpu"
    bf16: bool = False
    channels_last: bool = False
    compiled: bool = False
    graphs: bool = False
    keep_memory: bool = False
    steps: int = 1000

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1, 8, 8) if self.network == "tiny" else (3, 32, 32)

    def autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16) if self.bf16 else nullcontext()

    def placed(self, network: nn.Module) -> nn.Module:
        network = network.to(self.device)
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)
        if self.compiled:
            network.compile(mode="reduce-overhead" if self.graphs else None)
        return network

    def pictures(self) -> Tensor:
        pictures = torch.randn(self.batch, *self.shape, device=self.device).clamp(-1, 1)
        return pictures.to(memory_format=torch.channels_last) if self.channels_last else pictures


def unet(setting: Setting) -> UNet:
    channels = setting.shape[0]
    if setting.network == "cifar10":
        return UNet(channels, channels)
    return UNet(
        channels, channels, channels=32, multipliers=(1, 2), blocks=1, attention_levels=(1,), norm_groups=8
    )


def ddpm_training(setting: Setting) -> Run:
    """This project's parts in a plain loop; what Lightning adds is in `overhead.py`."""
    if setting.keep_memory:
        keep_freed_memory()
    network = setting.placed(unet(setting)).train()
    parameters = list(network.parameters())
    optimizer = ADAM(parameters)
    average = EMA(network)
    schedule = linear(1000)
    x_0 = setting.pictures()
    step = 0

    def run() -> None:
        nonlocal step
        step += 1
        places = range(setting.batch)
        t = (Stream(0, Purpose.TIMESTEP, setting.device).uniform(step, places) * 1000).long()
        eps = Stream(0, Purpose.NOISE, setting.device).normal(step, places, setting.shape)
        with setting.autocast():
            output = network(q_sample(schedule, x_0, t, eps), t)
        F.mse_loss(output.float(), eps).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return run


def plain_loop(network: nn.Module, setting: Setting) -> Run:
    """The same bare loop around any network, with PyTorch's quickest Adam, without an average of weights."""
    if setting.keep_memory:
        keep_freed_memory()
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=2e-4, fused=True)
    x_0 = setting.pictures()
    alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, device=setting.device)).cumprod(0)

    def run() -> None:
        t = torch.randint(0, 1000, (setting.batch,), device=setting.device)
        eps = torch.randn_like(x_0)
        signal = alphas_cumprod[t][:, None, None, None]
        with setting.autocast():
            output = network(signal.sqrt() * x_0 + (1 - signal).sqrt() * eps, t)
        output = output if isinstance(output, Tensor) else output.sample
        F.mse_loss(output.float(), eps).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def ddpm_plain_loop(setting: Setting) -> Run:
    """This project's network alone."""
    return plain_loop(setting.placed(unet(setting)).train(), setting)


def diffusers_plain_loop(setting: Setting) -> Run:
    """diffusers' network of the same channels, blocks and attention alone."""
    return plain_loop(setting.placed(_unet_2d_model(setting)).train(), setting)


def _unet_2d_model(setting: Setting) -> nn.Module:
    from diffusers import UNet2DModel

    config, _ = unet_to_diffusers(unet(setting), setting.shape[1:])
    config.pop("_class_name")
    return UNet2DModel(**config)


def diffusers_training(setting: Setting) -> Run:
    """What diffusers' example of unconditional training does in a step, the pictures being there."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler

    if setting.keep_memory:
        keep_freed_memory()
    accelerator = Accelerator(mixed_precision="bf16" if setting.bf16 else "no", cpu=setting.device == "cpu")
    model = setting.placed(_unet_2d_model(setting)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    rate = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=100_000)
    model, optimizer, rate = accelerator.prepare(model, optimizer, rate)
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    x_0 = setting.pictures()

    def run() -> None:
        eps = torch.randn(x_0.shape, device=x_0.device)
        t = torch.randint(0, 1000, (setting.batch,), device=x_0.device)
        noisy = scheduler.add_noise(x_0, eps, t)
        with accelerator.accumulate(model):
            loss = F.mse_loss(model(noisy, t).sample.float(), eps)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        loss.detach().item()  # its progress bar shows it

    return run


def _gaussian_diffusion(setting: Setting) -> nn.Module:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        # it is of another build than torch; only the data set there uses it, which is not measured
        sys.modules["torchvision"] = stand_in = types.ModuleType("torchvision")
        stand_in.transforms = stand_in.utils = types.ModuleType("torchvision.transforms")
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    channels, size, _ = setting.shape
    if setting.network == "tiny":
        network = Unet(32, dim_mults=(1, 2), channels=channels, dropout=0.1)
    else:
        network = Unet(
            128, dim_mults=(1, 2, 2, 2), channels=channels, dropout=0.1,
            full_attn=(False, True, False, False),
        )  # fmt: skip
    return GaussianDiffusion(setting.placed(network), image_size=size, timesteps=setting.steps)


def denoising_diffusion_training(setting: Setting) -> Run:
    """What the trainer of denoising_diffusion_pytorch does in a step, the pictures being there."""
    import ema_pytorch
    from accelerate import Accelerator

    model = _gaussian_diffusion(setting)
    accelerator = Accelerator(mixed_precision="bf16" if setting.bf16 else "no", cpu=setting.device == "cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99))
    average = ema_pytorch.EMA(model, beta=0.995, update_every=10).to(setting.device)
    model, optimizer = accelerator.prepare(model.to(setting.device), optimizer)
    x_0 = (setting.pictures() + 1) / 2

    def run() -> None:
        model.train()
        with accelerator.autocast():
            loss = model(x_0)
            loss.item()
        accelerator.backward(loss)
        accelerator.wait_for_everyone()
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.wait_for_everyone()
        average.update()

    return run


def ddpm_sampling(setting: Setting) -> Run:
    """This project's ancestral sampler, noise keyed by picture."""
    if setting.keep_memory:
        keep_freed_memory()
    network = setting.placed(unet(setting)).eval()
    schedule = linear(1000)
    sampler = Ancestral(None if setting.steps == 1000 else setting.steps)
    stream = Stream(0, Purpose.SAMPLE_STEP, setting.device)

    def run() -> Tensor:
        def noise(t: int, like: Tensor) -> Tensor:
            return stream.normal(t, range(len(like)), tuple(like.shape[1:]))

        with setting.autocast():
            denoiser = Denoiser(network, Parametrization(Epsilon(), FixedLarge()))
            return sampler(denoiser, schedule, setting.pictures(), noise=noise)

    return run


def diffusers_sampling(setting: Setting) -> Run:
    """diffusers' `DDPMPipeline`."""
    from diffusers import DDPMPipeline, DDPMScheduler

    if setting.keep_memory:
        keep_freed_memory()
    model = setting.placed(_unet_2d_model(setting)).eval()
    pipeline = DDPMPipeline(model, DDPMScheduler(1000, variance_type="fixed_large"))
    pipeline.set_progress_bar_config(disable=True)

    def run() -> Any:
        with setting.autocast():
            return pipeline(
                batch_size=setting.batch, num_inference_steps=setting.steps, output_type="np"
            ).images

    return run


def denoising_diffusion_sampling(setting: Setting) -> Run:
    """denoising_diffusion_pytorch's ancestral sampling."""
    model = _gaussian_diffusion(setting).to(setting.device).eval()

    def run() -> Tensor:
        with setting.autocast():
            return model.sample(batch_size=setting.batch)

    return run
