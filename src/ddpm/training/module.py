"""The LightningModule: the loss of a training step, and sampling from the network as it is now."""

from contextlib import nullcontext
from typing import Any, Literal, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ddpm.data.module import Batch
from ddpm.data.order import permutation
from ddpm.diffusion import Denoiser, NoiseSchedule, q_sample
from ddpm.diffusion.objectives import Objective
from ddpm.diffusion.samplers import OnStep, Sampler
from ddpm.diffusion.timesteps import Timesteps, Uniform
from ddpm.diffusion.validity import check_combination
from ddpm.diffusion.variances import Variance
from ddpm.diffusion.weighting import Noised, Weighting
from ddpm.training.ema import EMA
from ddpm.training.loggers import WandbLogger
from ddpm.training.metrics import RunningMean, log_scalars, reduce
from ddpm.training.randomness import Purpose, Stream, seed_dropout

Weights = Literal["ema", "raw"]


class MakeOptimizer(Protocol):
    """An optimizer that waits for its parameters, such as a partial of `ddpm.training.optimizers.adam`."""

    def __call__(self, parameters: Any) -> Any:
        """What `LightningModule.configure_optimizers` returns."""
        ...


class DDPM(LightningModule):
    """A denoising diffusion probabilistic model in training (Ho et al. 2020, algorithms 1 and 2).

    Args:
        network: predicts from (x_t [B, C, H, W], t int64 [B]).
        schedule: the noising steps.
        objective: what the network predicts.
        variance: of the reverse step.
        weighting: the loss, as a function of t.
        timesteps: how training timesteps are drawn.
        sampler: the reverse process that `sample` runs.
        optimizer: made when training begins.
        image_shape: (C, H, W) of x_0.
        ema_decay: of the averaged weights.
        clip_x_0: keep predicted pictures within [-1, 1] while sampling.
        seed: of the run; training draws everything from it, the step, and the place in the global batch.
        config: plain containers, kept in every checkpoint so that the model can be built again from it.
        data: plain containers that describe the data set, kept likewise.

    Raises:
        ValueError: where the parts make no sense together.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        *,
        objective: Objective,
        variance: Variance,
        weighting: Weighting,
        timesteps: Timesteps,
        sampler: Sampler,
        optimizer: MakeOptimizer,
        image_shape: tuple[int, int, int],
        ema_decay: float = 0.9999,
        clip_x_0: bool = True,
        seed: int = 0,
        config: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
    ):
        super().__init__()
        check_combination(
            schedule=schedule, objective=objective, variance=variance, weighting=weighting, sampler=sampler
        )
        self.network = network
        self.schedule = schedule
        self.objective = objective
        self.variance = variance
        self.weighting = weighting
        self.timesteps = timesteps
        self.sampler = sampler
        self.optimizer = optimizer
        self.image_shape = image_shape
        self.clip_x_0 = clip_x_0
        self.seed = seed
        self.config = config
        self.data = data
        self.ema = EMA(network, ema_decay)
        self.train_loss = RunningMean()
        self.gradient_norm = RunningMean()
        self.val_loss = RunningMean()
        self.learning_rate = float("nan")  # that of the last optimizer step
        self._seen: list[Tensor] = []  # (t, loss) of the micro-batches of this step

    def losses(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The loss of each sample, [B].

        Args:
            x_0: clean pictures [B, C, H, W] in [-1, 1].
            t: timesteps int64 [B].
            eps: unit Gaussian noise [B, C, H, W].
        """
        x_t = q_sample(self.schedule, x_0, t, eps)
        output = self.network(x_t, t).float()
        denoiser = Denoiser(self.network, self.objective, self.variance, clip=False)
        return self.weighting.losses(denoiser, self.schedule, Noised(x_0, t, eps, x_t), output)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Algorithm 1 on this device's part of the global batch."""
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        seed_dropout(self.seed, batch.step, micro_batch, self.global_rank)
        u = self._stream(Purpose.TIMESTEP).uniform(batch.step, batch.places)
        num_timesteps = self.schedule.num_timesteps
        t = self.timesteps.draw(u, num_timesteps, batch.places, self.trainer.datamodule.batch_size)
        eps = self._stream(Purpose.NOISE).normal(batch.step, batch.places, self.image_shape)
        losses = self.losses(batch.x_0, t, eps)
        if self.timesteps.adapts:
            self._seen.append(torch.stack([t.float(), losses.detach()]))
        loss = (self.timesteps.weight(t, num_timesteps) * losses).mean()
        self.train_loss.add(loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.network.parameters())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, and keep the norm. Lightning's own refuses fused optimizers under bf16."""
        limit = float("inf") if gradient_clip_val is None else gradient_clip_val
        self.gradient_norm.add(nn.utils.clip_grad_norm_(self.network.parameters(), limit))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.learning_rate = self.optimizers().param_groups[0]["lr"]
        super().optimizer_step(*args, **kwargs)
        self.ema.update()
        if self.timesteps.adapts:
            self._observe()

    def _observe(self) -> None:
        """Show the losses of the global batch to the timesteps, on every rank the same and in the same
        order.
        """
        mine = torch.stack(self._seen)  # [micro-batches, 2, B]
        self._seen.clear()
        everyone = self.all_gather(mine).view(-1, *mine.shape)  # [ranks, micro-batches, 2, B]
        t, losses = everyone.permute(2, 1, 0, 3).flatten(1)  # as places lie: ranks within micro-batches
        self.timesteps.observe(t.long(), losses, self.schedule.num_timesteps)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss of the averaged weights on (t, eps) that belong to each picture, the same in every run.

        The timesteps of the whole validation set are stratified: one in each of N equal parts of the chain.
        """
        total = len(self.trainer.datamodule.data_set.validation)
        strata = torch.from_numpy(permutation(0, 0, total, np.asarray(batch.places)))
        u = ((strata + 0.5) / total).to(self.device)
        t = Uniform().draw(u, self.schedule.num_timesteps)
        eps = Stream(0, Purpose.VALIDATION, self.device).normal(0, batch.places, self.image_shape)
        with self.ema.swapped_in():
            self.val_loss.add(self.losses(batch.x_0, t, eps).sum(), count=len(t))

    def on_validation_epoch_end(self) -> None:
        log_scalars(self.trainer, reduce({"val/loss": self.val_loss}))

    def denoiser(self) -> Denoiser:
        """The network as samplers see it."""
        return Denoiser(self.network, self.objective, self.variance, clip=self.clip_x_0)

    @torch.inference_mode()
    def sample(
        self,
        images: range,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        weights: Weights = "ema",
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draw pictures from noise.

        Image i starts from noise keyed by (seed, i), whatever the batch it is drawn in.

        Args:
            images: indices of the images to draw.
            seed: of the noise.
            sampler: another reverse process than the module's own.
            weights: the averaged ones, or the network's own.
            on_step: sees (t, x_t, predicted x_0) at every step.

        Returns:
            float32 [len(images), C, H, W] in [-1, 1].
        """
        x_t = Stream(seed, Purpose.SAMPLE_START, self.device).normal(0, images, self.image_shape)
        stream = Stream(seed, Purpose.SAMPLE_STEP, self.device)

        def noise(t: int, like: Tensor) -> Tensor:
            return stream.normal(t, images, tuple(like.shape[1:]))

        was_training = self.network.training
        self.network.eval()
        try:
            with self.ema.swapped_in() if weights == "ema" else nullcontext():
                x_0 = (sampler or self.sampler)(
                    self.denoiser(), self.schedule, x_t, noise=noise, on_step=on_step
                )
        finally:
            self.network.train(was_training)
        return x_0.clamp(-1, 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self.ema.state_dict()
        checkpoint["timesteps"] = self.timesteps.state_dict()
        checkpoint["config"] = self.config
        checkpoint["data"] = self.data
        checkpoint["wandb_id"] = next(
            (logger.run_id for logger in self.trainer.loggers if isinstance(logger, WandbLogger)), None
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.ema.load_state_dict(checkpoint["ema"])
        self.timesteps.load_state_dict(checkpoint.get("timesteps", {}))

    def _stream(self, purpose: Purpose) -> Stream:
        return Stream(self.seed, purpose, self.device)
