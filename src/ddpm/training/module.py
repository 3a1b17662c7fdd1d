"""The LightningModule: the loss of a training step, and sampling from the network as it is now."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ddpm.data.batches import Batch
from ddpm.diffusion import Denoiser, Known, NoiseSchedule, q_sample
from ddpm.diffusion.guidance import Guidance, NoGuidance
from ddpm.diffusion.objectives import Objective
from ddpm.diffusion.samplers import OnStep, Sampler
from ddpm.diffusion.start import FromNoise, Start
from ddpm.diffusion.timesteps import Timesteps, Uniform
from ddpm.diffusion.validity import check_combination, check_request
from ddpm.diffusion.variances import Variance
from ddpm.diffusion.weighting import Noised, Weighting
from ddpm.random import Purpose, Stream, permutation, seed_dropout
from ddpm.runtime.arithmetic import activation_bytes, flops_per_image
from ddpm.runtime.computing import AS_IT_IS, Computing
from ddpm.sampling.model import Weights
from ddpm.training.ema import EMA
from ddpm.training.loggers import WandbLogger
from ddpm.training.metrics import RunningMean, log_scalars, reduce


class MakeOptimizer(Protocol):
    """An optimizer that waits for its parameters, such as a partial of `ddpm.training.optimizers.adam`."""

    def __call__(self, parameters: Any) -> Any:
        """What `LightningModule.configure_optimizers` returns."""
        ...


class DDPM(LightningModule):
    """A denoising diffusion probabilistic model in training (Ho et al. 2020, algorithms 1 and 2).

    Args:
        network: predicts from (x_t [B, C, H, W], t int64 [B]), and from labels int64 [B] as well where there
            are classes, -1 for none.
        schedule: the noising steps.
        objective: what the network predicts.
        variance: of the reverse step.
        weighting: the loss, as a function of t.
        timesteps: how training timesteps are drawn.
        sampler: the reverse process that `sample` runs.
        optimizer: made when training begins.
        image_shape: (C, H, W) of x_0.
        classes: names of the classes that the network is told; None for an unconditional one.
        guidance: how the class steers `sample`.
        label_drop: how often the data withholds the class in training, which guidance cannot do without.
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
        classes: Sequence[str] | None = None,
        guidance: Guidance | None = None,
        label_drop: float = 0.0,
        ema_decay: float = 0.9999,
        clip_x_0: bool = True,
        seed: int = 0,
        config: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.classes = None if classes is None else list(classes)
        self.guidance = guidance or NoGuidance()
        check_combination(
            schedule=schedule,
            objective=objective,
            variance=variance,
            weighting=weighting,
            sampler=sampler,
            guidance=self.guidance,
            num_classes=self.num_classes,
            label_drop=label_drop,
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
        self.computing = AS_IT_IS
        self._compiled = False
        self._streams: dict[tuple[Purpose, torch.device], Stream] = {}
        self._parameters_of_network = list(network.parameters())  # to walk the network for them takes time

    @cached_property
    def flops_per_image(self) -> float:
        """See `ddpm.runtime.arithmetic.flops_per_image`."""
        return flops_per_image(self.network, self.image_shape)

    @cached_property
    def activation_bytes(self) -> float:
        """See `ddpm.runtime.arithmetic.activation_bytes`."""
        return activation_bytes(self.network, self.image_shape)

    def compute_as(self, computing: Computing) -> None:
        """Lay out the weights and the average as said, and sample in this precision; that of training is the
        trainer's. Nothing is compiled here.
        """
        self.computing = computing
        layout = torch.channels_last if computing.channels_last else torch.contiguous_format
        for parameter in self.network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)
        self.ema.follow()

    def compile_network(self) -> None:
        """Compile the training step's use of the network. Samples and validation, whose batches have other
        sizes, use it as it is; so do checkpoints.
        """
        self.network.compile()
        self._compiled = True

    @property
    def num_classes(self) -> int | None:
        """That the network is told; None for an unconditional one."""
        return None if self.classes is None else len(self.classes)

    def losses(self, x_0: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss of each sample, [B].

        Args:
            x_0: clean pictures [B, C, H, W] in [-1, 1].
            t: timesteps int64 [B].
            eps: unit Gaussian noise [B, C, H, W].
            labels: int64 [B]; an unconditional network is not told them.
        """
        x_t = q_sample(self.schedule, x_0, t, eps)
        told = () if self.classes is None else (labels,)
        output = self.network(x_t, t, *told).float()
        denoiser = self.denoiser(clip=False)
        return self.weighting.losses(denoiser, self.schedule, Noised(x_0, t, eps, x_t), output)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Algorithm 1 on this device's part of the global batch."""
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        seed_dropout(self.seed, batch.step, micro_batch, self.global_rank, self.device)
        u = self._stream(Purpose.TIMESTEP).uniform(batch.step, batch.indices)
        num_timesteps = self.schedule.num_timesteps
        t = self.timesteps.draw(u, num_timesteps, batch.indices, self.trainer.datamodule.batch_size)
        eps = self._stream(Purpose.NOISE).normal(batch.step, batch.indices, self.image_shape)
        losses = self.losses(batch.x_0, t, eps, batch.labels)
        if self.timesteps.adapts:
            self._seen.append(torch.stack([t.float(), losses.detach()]))
        loss = (self.timesteps.weight(t, num_timesteps) * losses).mean()
        self.train_loss.add(loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.network.parameters())

    def on_train_start(self) -> None:
        """Moments that a checkpoint brought lie in memory as the weights did then; a fused step needs them to
        lie as the weights do now.
        """
        for parameter, state in self.optimizers(use_pl_optimizer=False).state.items():
            for name, value in state.items():
                if (
                    isinstance(value, Tensor)
                    and value.shape == parameter.shape != ()
                    and (value.stride() != parameter.stride())
                ):
                    state[name] = torch.empty_like(parameter).copy_(value)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, and keep the norm.

        Lightning's own refuses fused optimizers under bf16; torch's sorts all gradients by device and type
        each time, which takes as long as the clipping.
        """
        gradients = [p.grad for p in self._parameters_of_network if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.gradient_norm.add(norm)
        if gradient_clip_val is not None:
            torch._foreach_mul_(gradients, (gradient_clip_val / (norm + 1e-6)).clamp(max=1))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.learning_rate = self.optimizers().param_groups[0]["lr"]
        super().optimizer_step(*args, **kwargs)
        for parameter in self._parameters_of_network:
            parameter.grad = None  # at once, so that the next forward pass has their memory
        self.ema.update()
        if self.timesteps.adapts:
            self._observe()

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `optimizer_step` has freed the gradients."""

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
        strata = torch.from_numpy(permutation(0, 0, total, np.asarray(batch.indices)))
        u = ((strata + 0.5) / total).to(self.device)
        t = Uniform().draw(u, self.schedule.num_timesteps)
        eps = Stream(0, Purpose.VALIDATION, self.device).normal(0, batch.indices, self.image_shape)
        with self.evaluating():
            losses = self.losses(batch.x_0, t, eps, batch.labels)
            self.val_loss.add(losses.sum(), count=len(t))

    def on_validation_epoch_end(self) -> None:
        log_scalars(self.trainer, reduce({"val/loss": self.val_loss}))

    def denoiser(
        self,
        labels: Tensor | None = None,
        *,
        guidance: Guidance | None = None,
        known: Known | None = None,
        clip: bool | None = None,
    ) -> Denoiser:
        """The network as samplers see it; what is None is as the module has it, or absent."""
        return Denoiser(
            self.network,
            self.objective,
            self.variance,
            clip=self.clip_x_0 if clip is None else clip,
            labels=labels,
            guidance=guidance or self.guidance,
            known=known,
        )

    def labels_of(self, images: range, labels: Sequence[int] | None = None) -> list[int] | None:
        """The class of each image that is sampled: the labels in turn, again and again; by default every
        class. None where the network knows none.
        """
        if self.num_classes is None:
            return None
        turn = labels or range(self.num_classes)
        return [turn[i % len(turn)] for i in images]

    @torch.inference_mode()
    def sample(
        self,
        images: range,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        weights: Weights = "ema",
        labels: Sequence[int] | None = None,
        guidance: Guidance | None = None,
        start: Start | None = None,
        known: Known | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draw pictures, by default from noise.

        Image i starts from noise keyed by (seed, i), whatever the batch it is drawn in.

        Args:
            images: indices of the images to draw.
            seed: of the noise.
            sampler: another reverse process than the module's own.
            weights: the averaged ones, or the network's own.
            labels: the classes that images take in turn, -1 for none; by default every class.
            guidance: another than the module's own.
            start: where the reverse process starts; by default from noise.
            known: pixels that the pictures shall have, [C, H, W] or broadcasting with it.
            on_step: sees (t, x_t, predicted x_0) at every step.

        Returns:
            float32 [len(images), C, H, W] in [-1, 1].

        Raises:
            ValueError: where a label, the start or the mask does not fit.
        """
        start, sampler = start or FromNoise(), sampler or self.sampler
        check_request(
            schedule=self.schedule,
            sampler=sampler,
            guidance=guidance or self.guidance,
            start_t=start.t,
            labels=labels,
            num_classes=self.num_classes,
            picture_size=self.image_shape[1:],
            mask_size=None if known is None else tuple(known.free.shape[-2:]),
        )
        stream = Stream(seed, Purpose.SAMPLE_STEP, self.device)
        first = Stream(seed, Purpose.SAMPLE_START, self.device)
        x_t = start.x_t(self.schedule, images, lambda places: first.normal(0, places, self.image_shape))

        def noise(t: int, like: Tensor) -> Tensor:
            return stream.normal(t, images, tuple(like.shape[1:]))

        asked_for = self.labels_of(images, labels)
        denoiser = self.denoiser(
            None if asked_for is None else torch.tensor(asked_for, device=self.device),
            guidance=guidance,
            known=None if known is None else Known(*(part.to(self.device) for part in known)),
        )
        with self.evaluating(weights):
            x_0 = sampler(denoiser, self.schedule, x_t, noise=noise, start=start.t, on_step=on_step)
        return x_0.clamp(-1, 1)

    @contextmanager
    def evaluating(self, weights: Weights = "ema") -> Iterator[None]:
        """The network without dropout, with the averaged weights or its own, as `compute_as` said.

        Autocast forgets what it has converted of some weights before others take their place.
        """
        was_training = self.network.training
        self.network.eval()
        try:
            with ExitStack() as stack:
                if weights == "ema":
                    stack.callback(torch.clear_autocast_cache)
                    stack.enter_context(self.ema.swapped_in())
                    torch.clear_autocast_cache()
                if self.computing.precision == "bf16-mixed":
                    stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
                if self._compiled:
                    stack.enter_context(torch.compiler.set_stance("force_eager"))
                yield
        finally:
            self.network.train(was_training)

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
        key = purpose, self.device
        if key not in self._streams:
            self._streams[key] = Stream(self.seed, purpose, self.device)
        return self._streams[key]
