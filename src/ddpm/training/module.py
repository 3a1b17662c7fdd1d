"""The LightningModule: the loss of a training step, and what belongs to a step."""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ddpm.data.module import ImageDataModule
from ddpm.diffusion import Denoiser, Known, NoiseSchedule, Parametrization, q_sample
from ddpm.diffusion.condition import Condition, apply_network, check_condition
from ddpm.diffusion.guidance import Guidance, NoGuidance
from ddpm.diffusion.objectives import Epsilon, Objective
from ddpm.diffusion.samplers import Ancestral, OnStep, Sampler
from ddpm.diffusion.start import Start
from ddpm.diffusion.timesteps import Timesteps, Uniform
from ddpm.diffusion.validity import check_combination
from ddpm.diffusion.variances import FixedLarge, Variance
from ddpm.diffusion.weighting import Noised, Simple, Weighting
from ddpm.random import Purpose, Stream, rekeyed, seed_dropout
from ddpm.runtime.arithmetic import activation_bytes, flops_per_image, training_bytes
from ddpm.runtime.computing import AS_IT_IS, Computing
from ddpm.sampling.conditions import HeldOut
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.model import Conditions, Weights
from ddpm.training import checkpoints, replicas
from ddpm.training.batches import TrainerBatches
from ddpm.training.callbacks.completed_steps import CompletedSteps
from ddpm.training.callbacks.continuation import Continuation, make_up_step
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.callbacks.snapshots import Snapshots
from ddpm.training.checkpoints.layout import tensors_in
from ddpm.training.ema import EMA, MakeAverage
from ddpm.training.gradients import clip, norms, scale_of
from ddpm.training.loggers import WandbLogger
from ddpm.training.lr_schedules import MakeLRSchedule
from ddpm.training.metrics import RunningMean, load_state, log_scalars, reduce, state_of
from ddpm.training.nonfinite.diagnosis import Seen
from ddpm.training.nonfinite.guard import Guard, Policy
from ddpm.training.optimizers import (
    ADAM,
    MakeOptimizer,
    lay_out_moments,
    lowered,
    make_optimizer,
    settings_of,
)
from ddpm.training.power_ema import PowerEMA
from ddpm.training.sharding import FullySharded, begin_alike, shard, without_inference_mode
from ddpm.training.shards import are_shards

log = logging.getLogger(__name__)

NOT_COMPILED = "model.compile=true: is not for a sharded network (strategy=fsdp)"


class DDPM(LightningModule):
    """A denoising diffusion probabilistic model in training (Ho et al. 2020, algorithms 1 and 2).

    It trains on batches of `ddpm.data`, and on those of any DataLoader: see
    `ddpm.training.batches.TrainerBatches`.

    Args:
        network: predicts from (x_t [B, C, H, W], t int64 [B]), and from labels int64 [B] as well where there
            are classes, -1 for none.
        schedule: the noising steps.
        image_shape: (C, H, W) of x_0.
        objective: what the network predicts; epsilon by default.
        variance: of the reverse step; the larger of the fixed ones by default.
        weighting: the loss, as a function of t; L_simple by default.
        timesteps: how training timesteps are drawn; uniformly by default.
        sampler: the reverse process that `sample` runs; ancestral sampling by default.
        guidance: how the class steers `sample`; not at all by default.
        optimizer: made of the parameters when training begins: a partial of any class of `torch.optim`; the
            paper's Adam by default.
        lr_schedule: made of the optimizer then: a partial of a function of `ddpm.training.lr_schedules` or of
            a class of `torch.optim.lr_scheduler`, and stepped once an optimizer step (`ReduceLROnPlateau`:
            once a validation, by val/loss). The rate is constant by default.
        ema: made of the network: how its weights are averaged.
        classes: names of the classes that the network is conditioned on; None for an unconditional one.
        label_drop: how often training withholds the class, which guidance cannot do without.
        condition_channels: of the image that the network is conditioned on, which it sees behind the channels
            of x_t; 0 for none.
        vector_size: numbers of the vector that it is conditioned on; 0 for none.
        condition_drop: how often training withholds that condition.
        clip_x_0: keep predicted images within [-1, 1] while sampling; a number above 0 is the end in place
            of 1.
        seed: of the run; training draws everything from it, the step, and the index in the global batch.
        on_nonfinite: what a loss or gradient does that is not finite, see `ddpm.training.nonfinite.guard`:
            "stop" the training, "skip" the step, or "rollback", which
            `ddpm.training.nonfinite.rollback.fit` knows to go back for.
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
        image_shape: tuple[int, int, int],
        objective: Objective | None = None,
        variance: Variance | None = None,
        weighting: Weighting | None = None,
        timesteps: Timesteps | None = None,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        optimizer: MakeOptimizer = ADAM,
        lr_schedule: MakeLRSchedule | None = None,
        ema: MakeAverage = EMA,
        classes: Sequence[str] | None = None,
        label_drop: float = 0.0,
        condition_channels: int = 0,
        vector_size: int = 0,
        condition_drop: float = 0.0,
        clip_x_0: bool | float = True,
        seed: int = 0,
        on_nonfinite: Policy = "stop",
        config: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.network = network
        self.schedule = schedule
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.objective = objective or Epsilon()
        self.variance = variance or FixedLarge()
        self.weighting = weighting or Simple()
        self.timesteps = timesteps or Uniform()
        self.sampler = sampler or Ancestral()
        self.guidance = guidance or NoGuidance()
        self.optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.classes = None if classes is None else list(classes)
        self.label_drop = label_drop
        self.condition_channels = condition_channels
        self.vector_size = vector_size
        self.condition_drop = condition_drop
        if condition_drop and not self.is_conditioned:
            raise ValueError(
                f"condition_drop={condition_drop}: withholds a condition from a network that takes none; "
                "use 0, or give condition_channels= or vector_size="
            )
        self.conditions: Conditions | None = None
        """Those that images are drawn under where none are given; in a fit those of held-out images."""
        if clip_x_0 is not False and not (isinstance(clip_x_0, int | float) and 0 < clip_x_0 < math.inf):
            raise ValueError(f"clip_x_0={str(clip_x_0)[:40]}: must be true, false or a number above 0")
        self.clip_x_0 = clip_x_0
        self.seed = self._draws_from = seed
        self.guard = Guard(on_nonfinite)
        self.config = config
        self.data = data
        check_combination(
            schedule=schedule,
            objective=self.objective,
            variance=self.variance,
            weighting=self.weighting,
            timesteps=self.timesteps,
            sampler=self.sampler,
            guidance=self.guidance,
            num_classes=self.num_classes,
            label_drop=label_drop,
            condition_drop=condition_drop,
        )
        self.ema = ema(network)
        self.sigma_rel: float | None = None
        """Of a network that is an average which was made after training, see `ddpm.training.posthoc`."""
        self.train_loss, self.gradient_norm = RunningMean(), RunningMean()
        self._measured: dict[int, RunningMean] = {}  # loss on held-out images, by DataLoader
        self.gradient_norms: tuple[list[int], Tensor] | None = None
        """Of the last step, before clipping: which parameters of the network have a gradient, and the norm of
        each such gradient, on the device.
        """
        self.learning_rate = float("nan")  # that of the last optimizer step
        self.images_per_step = 0  # over all devices and micro-batches
        self.computing = AS_IT_IS
        self._compiled = False
        self._batches = TrainerBatches(self.image_shape, self.num_classes, label_drop=label_drop, seed=seed)
        self.losses_seen: tuple[Tensor, Tensor] | None = None
        """t int64 [B] and the loss at it of each image of this device's last micro-batch, on the device."""
        self.losses_measured: tuple[Tensor, Tensor] | None = None
        """The same of its last batch of held-out images."""
        self._seen: list[Any] = []  # (t, loss) [ranks, 2, B] of the micro-batches of this step
        self._streams: dict[tuple[Purpose, torch.device], Stream] = {}
        self._parameters_of_network = list(network.parameters())  # to walk the network for them takes time
        self.parameters_beside_network = [
            parameter for name, parameter in self.named_parameters() if not name.startswith("network.")
        ]
        """What else is trained: those of a weighting which learns. Their gradients are not clipped."""
        self._weights: Weights | None = None  # that the network is evaluated with just now
        self._begins = False  # the first step of a start
        self._begins_lr_schedule = False
        self.validated_step = -1  # at which the last validation came to its end
        self._plateau_step = -1  # of the last validation that a plateau was looked for in
        self._continues: dict[str, Any] | None = None  # what a checkpoint says beside weights and averages
        self._passes_left = 0  # through a sharded network, in this validation or test, on every rank
        self._batches_left = 0  # of them with images of this rank

    @property
    def num_classes(self) -> int | None:
        """That the network is conditioned on; None for an unconditional one."""
        return None if self.classes is None else len(self.classes)

    @property
    def is_conditioned(self) -> bool:
        """Whether the network is conditioned on anything beside the class."""
        return bool(self.condition_channels or self.vector_size)

    @property
    def condition_sizes(self) -> tuple[int, int]:
        """Channels of the image and numbers of the vector that it takes; 0 for none."""
        return self.condition_channels, self.vector_size

    def no_condition(self, n: int) -> Condition | None:
        """For n images, what the network sees where the condition is withheld; None where it takes none."""
        channels, size, shape = self.condition_channels, self.vector_size, self.image_shape[1:]
        if not self.is_conditioned:
            return None
        return Condition(
            torch.zeros(n, channels, *shape, device=self.device) if channels else None,
            torch.zeros(n, size, device=self.device) if size else None,
        )

    @property
    def draws_latents(self) -> bool:
        """Whether it draws latents, which have no bounds, and no images in [-1, 1]."""
        return (self.data or {}).get("latents") is not None

    @property
    def parametrization(self) -> Parametrization:
        """What the network's output means, as losses see it."""
        return Parametrization(self.objective, self.variance)

    # The loss (Ho et al. 2020, algorithm 1)

    def losses(
        self,
        x_0: Tensor,
        t: Tensor,
        eps: Tensor,
        labels: Tensor | None = None,
        condition: Condition | None = None,
    ) -> Tensor:
        """The loss of each sample, [B].

        Args:
            x_0: clean images [B, C, H, W] in [-1, 1].
            t: timesteps int64 [B].
            eps: unit Gaussian noise [B, C, H, W].
            labels: int64 [B]; an unconditional network is not given them.
            condition: of each image; a network that takes none is given None.
        """
        x_t = q_sample(self.schedule, x_0, t, eps)
        inputs = self.parametrization.network_inputs(self.schedule, x_t, t)
        output = self(*inputs, labels, condition).float()
        return self.weighting.losses(self.parametrization, self.schedule, Noised(x_0, t, eps, x_t), output)

    def forward(
        self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, condition: Condition | None = None
    ) -> Tensor:
        """The network's output, [B, C, H, W] or twice as many channels where it has learned a variance.

        Args:
            x_t: noised images, as the objective has the network see them.
            t: timesteps, or what the objective gives the network in their place.
            labels: int64 [B]; an unconditional network is not given them.
            condition: of each image; a network that takes none is given None.

        Raises:
            ValueError: for another condition than the network was made for.
        """
        check_condition(condition, self.condition_channels, self.vector_size)
        labels = None if self.classes is None else labels
        return apply_network(self.network, x_t, t, labels, condition)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Algorithm 1 on this device's part of the global batch."""
        part = self._batches.training(batch, batch_idx, self.trainer)
        self.images_per_step = part.images_per_step
        x_0, labels, step, _, condition = part.batch
        seed_dropout(self._draws_from, step, part.micro_batch, self.global_rank, self.device)
        u = self._stream(Purpose.TIMESTEP).uniform(step, part.batch.indices)
        t = self.timesteps.draw(u, self.schedule, part.stratum, part.strata)
        eps = self._stream(Purpose.NOISE).normal(step, part.batch.indices, self.image_shape)
        losses = self.losses(x_0, t, eps, labels, condition)
        self.losses_seen = t, losses.detach()
        if self.timesteps.adapts:
            self._seen.append(self.all_gather(torch.stack([t.float(), losses.detach()])))
        loss = (self.timesteps.weight(t, self.schedule) * losses).mean()
        seen = Seen(part.batch, part.micro_batch, self._draws_from, t, losses.detach(), loss.detach())
        return self.guard.guarded(loss, seen)

    def _stream(self, purpose: Purpose) -> Stream:
        key = purpose, self.device
        if key not in self._streams:
            self._streams[key] = Stream(self._draws_from, purpose, self.device)
        return self._streams[key]

    # The optimizer step

    def configure_callbacks(self) -> list[Callback]:
        """The rows of training, the steps that every logger counts, and going on after the last step, where
        the trainer has not been given them: one of a person's own script; and the snapshots of averages.
        """
        trainer: Any = self.trainer  # its callbacks have no type
        given = {type(callback) for callback in trainer.callbacks}
        ours = (CompletedSteps, Continuation, TrainingRows)
        made: list[Callback] = [callback() for callback in ours if callback not in given]
        if isinstance(self.ema, PowerEMA) and Snapshots not in given:
            made.append(Snapshots(self.ema.snapshot_every_n_steps))
        return made

    def setup(self, stage: str) -> None:
        """Refuse precisions that would round the tables of the noise schedule, or draw other noise."""
        precision = self.trainer.precision
        if precision.endswith("-true") and precision != "32-true":
            raise ValueError(
                f"precision={precision}: weights, noise and losses are float32; use 32-true, bf16-mixed or "
                "16-mixed"
            )

    def configure_model(self) -> None:
        """Shard the network, once, where the strategy is `FullySharded`.

        Raises:
            ValueError: for Lightning's own strategy of that kind, whose checkpoints are others, and where the
                network is compiled.
        """
        strategy = None if self._trainer is None else self.trainer.strategy
        if not isinstance(strategy, ModelParallelStrategy) or self.is_sharded:
            return
        if not isinstance(strategy, FullySharded):
            raise ValueError(
                "strategy: ModelParallelStrategy leaves the sharding to the model; use "
                "ddpm.training.sharding.FullySharded(), by which this one is sharded"
            )
        if self._compiled:
            raise ValueError(NOT_COMPILED)
        _ = self.flops_per_image, self.activation_bytes  # counted while it is whole
        averages = (tensor for _, tensor in tensors_in(self.ema.state_dict(), "ema"))
        beginning = (*self.network.parameters(), *self.network.buffers(), *averages)
        begin_alike(beginning, strategy.shards)
        shard(self.network, strategy.shards, str(self.trainer.precision))
        self._parameters_of_network = list(self.network.parameters())
        self.ema.follow()

    @property
    def is_sharded(self) -> bool:
        """Whether each device holds a part of the network only, so that all must go through it together."""
        return are_shards(self._parameters_of_network)

    def configure_optimizers(self) -> Any:
        if self.is_sharded and self.parameters_beside_network:
            raise ValueError(
                f"weighting: {type(self.weighting).__name__} has parameters of its own, and strategy=fsdp "
                "shards the network's alone; use strategy=ddp, or weighting=simple"
            )
        trained = [*self.network.parameters(), *self.parameters_beside_network]
        optimizer = make_optimizer(self.optimizer, trained)
        if self.lr_schedule is None:
            self._fresh_groups = settings_of(optimizer)
            return optimizer
        schedule = self.lr_schedule(optimizer)
        self._fresh_groups = settings_of(optimizer)
        # strict=False: a plateau is looked for after each validation, and before the first there is no loss
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": schedule,
                "interval": "step",
                "monitor": "val/loss",
                "strict": False,
            },
        }

    def on_fit_start(self) -> None:
        """Draw what is random with the key that belongs to the returns to a checkpoint so far."""
        self.guard.begin()
        self._draws_from = rekeyed(self.seed, self.guard.rollbacks)
        self._streams.clear()
        self._batches.draw_from(self._draws_from)
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ImageDataModule):
            data.draw_anew(self.guard.rollbacks)
            if self.is_conditioned and self.conditions is None:
                self.conditions = HeldOut(data)

    def on_train_start(self) -> None:
        self._begins = True
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        lay_out_moments(optimizer)
        if self._begins_lr_schedule:
            for group, fresh in zip(optimizer.param_groups, self._fresh_groups, strict=True):
                group.update(fresh)
            self._begins_lr_schedule = False
        if self._continues is not None:
            self._go_on_from(self._continues)
            self._continues = None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self._begins:
            replicas.plan(self.trainer, self._batches.size(batch))
            self._begins = False

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says, and see whether the norm is finite."""
        present = [i for i, p in enumerate(self._parameters_of_network) if p.grad is not None]
        gradients = [p.grad for p in self._parameters_of_network if p.grad is not None]
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # of the losses, in half precision
        scale = scale_of(optimizer, scaler)
        norm, each = norms(gradients)
        if scale is not None:
            norm, each = norm / scale, each / scale
        self.gradient_norms = present, each
        clip(gradients, norm, gradient_clip_val, gradient_clip_algorithm, scale)
        self.guard.check(self, norm, each, present, optimizer, scaler)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        with lowered(optimizer, self.guard.rate_factor):
            self.learning_rate = optimizer.param_groups[0]["lr"]
            super().optimizer_step(*args, **kwargs)
        self.guard.applied(optimizer)
        for parameter in (*self._parameters_of_network, *self.parameters_beside_network):
            parameter.grad = None  # at once, so that the next forward pass has their memory
        self.ema.update()
        if self.timesteps.adapts:
            self._observe()

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `optimizer_step` has freed the gradients."""

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning calls it after each optimizer step; a plateau is looked for after each validation."""
        if isinstance(scheduler, ReduceLROnPlateau):
            if self._plateau_step == self.validated_step:
                return
            self._plateau_step = self.validated_step
        super().lr_scheduler_step(scheduler, metric)

    def _observe(self) -> None:
        """Show the losses of the global batch to the timesteps, on every rank the same and in the same
        order, that of the indices: ranks within micro-batches.
        """
        everyone = [seen.view(-1, *seen.shape[-2:]).transpose(0, 1).flatten(1) for seen in self._seen]
        self._seen.clear()
        t, losses = torch.cat(everyone, dim=1)
        self.timesteps.observe(t.long(), losses, self.schedule)

    def on_train_epoch_end(self) -> None:
        self.guard.settle(self)

    # The loss on held-out images

    def on_validation_start(self) -> None:
        self.guard.settle(self)
        checking = self.trainer.sanity_checking
        self._begin_measuring(
            self.trainer.num_sanity_val_batches if checking else self.trainer.num_val_batches
        )

    def on_test_start(self) -> None:
        self._begin_measuring(self.trainer.num_test_batches)

    def _begin_measuring(self, batches: Sequence[int | float]) -> None:
        """Let the ranks know how often they go through a sharded network, which they do together: one with
        fewer batches than another goes along.

        Args:
            batches: of this rank, by DataLoader.

        Raises:
            ValueError: where a DataLoader does not know how many it has.
        """
        if not self.is_sharded:
            return
        own = sum(batches)
        if math.isinf(own):
            raise ValueError(
                "a sharded network (strategy=fsdp) is measured on as many batches on every device, and a "
                "DataLoader of this run does not know how many it has; give it a length"
            )
        most = torch.tensor(own, device=self.device)
        self._passes_left = int(self.trainer.strategy.reduce(most, reduce_op="max"))
        self._batches_left = int(own)
        if not self._batches_left:
            self._go_along()

    def _go_along(self) -> None:
        """Make the passes that other ranks have images for."""
        t = torch.zeros(1, dtype=torch.int64, device=self.device)
        x_t = torch.zeros(1, *self.image_shape, device=self.device)
        with torch.no_grad(), self.evaluating():
            for _ in range(self._passes_left):
                self(x_t, t, t, self.no_condition(1))
        self._passes_left = 0

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss of the averaged weights on (t, eps) that belong to each image, the same in every run."""
        self._measure(batch, batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As `validation_step`."""
        self._measure(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_measured("val/loss", len(self.trainer.num_val_batches))
        if not self.trainer.sanity_checking:
            self.validated_step = self.trainer.global_step

    def on_test_epoch_end(self) -> None:
        self._log_measured("test/loss", len(self.trainer.num_test_batches))

    def _measure(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Add the losses of a batch."""
        batch, u = self._batches.held_out(batch, batch_idx, self.trainer)
        t = Uniform().draw(u, self.schedule).to(self.device)  # u is float64: on the CPU
        eps = Stream(0, Purpose.VALIDATION, self.device).normal(0, batch.indices, self.image_shape)
        with self.evaluating():
            losses = self.losses(batch.x_0, t, eps, batch.labels, batch.condition)
            self.losses_measured = t, losses
            self._measured.setdefault(dataloader_idx, RunningMean()).add(losses.sum(), count=len(t))
        if self.is_sharded:
            self._passes_left, self._batches_left = self._passes_left - 1, self._batches_left - 1
            if not self._batches_left:
                self._go_along()

    def _log_measured(self, name: str, num_loaders: int) -> None:
        """In training at the number of completed steps, which Lightning's own logging is one short of. Of
        several DataLoaders the mean over all their images, and that of each as Lightning would name it.
        """
        means = {name: RunningMean()}
        for i in range(num_loaders):
            mean = self._measured.pop(i, RunningMean())  # a rank may have seen nothing of one
            means[name].add(mean.total, mean.count)
            if num_loaders > 1:
                means[f"{name}/dataloader_idx_{i}"] = mean
        row = reduce(means, self.device)
        if self.trainer.is_global_zero and not math.isfinite(row[name]):
            log.warning(
                "%s is %s after step %d: a held-out image or the average of the weights is not finite",
                name, row[name], self.trainer.global_step,
            )  # fmt: skip
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting and not self.trainer.sanity_checking:
            log_scalars(self.trainer, row)
        for key, value in row.items():
            self.log(key, value, logger=not fitting, prog_bar=True, sync_dist=True, add_dataloader_idx=False)

    # Drawing images (algorithm 2)

    def denoiser(
        self,
        labels: Tensor | None = None,
        *,
        condition: Condition | None = None,
        guidance: Guidance | None = None,
        known: Known | None = None,
    ) -> Denoiser:
        """The network as samplers see it; what is None is as the module has it, or absent."""
        network = partial(without_inference_mode, self.network) if self.is_sharded else self.network
        return Denoiser(
            network,
            self.parametrization,
            clip=self.clip_x_0,
            labels=labels,
            condition=condition,
            withholds_class=bool(self.label_drop) or not self.condition_drop,
            withholds_condition=bool(self.condition_drop),
            guidance=guidance or self.guidance,
            known=known,
        )

    def sample(
        self,
        indices: Sequence[int],
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        weights: Weights | None = None,
        labels: Sequence[int] | None = None,
        condition: Condition | Conditions | None = None,
        guidance: Guidance | None = None,
        start: Start | None = None,
        known: Known | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draw images at once, by default from noise: float32 [len(indices), C, H, W] in [-1, 1].

        Arguments, and errors, are those of `ddpm.sampling.drawing.Drawing` and its call.
        """
        drawing = Drawing(
            self,
            seed=seed,
            sampler=sampler,
            weights=weights,
            labels=labels,
            condition=condition,
            guidance=guidance,
            start=start,
            known=known,
        )
        return drawing(indices, on_step=on_step)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Draw images: float32 [B, C, H, W] in [-1, 1].

        Args:
            batch: indices of images, int64 [B], as `DataLoader(range(64), batch_size=16)` gives them; or
                (indices, labels), the class of each. Image i is the same in every batch, on any number of
                devices.
        """
        parts = list(batch) if isinstance(batch, list | tuple) else [batch]
        if len(parts) not in (1, 2) or not all(_are_integers(part) for part in parts):
            raise ValueError(
                "predict draws images: give a DataLoader of their indices, such as DataLoader(range(64), "
                "batch_size=16), or of (indices, labels)"
            )
        if self.is_sharded and self.trainer.world_size > 1:
            raise ValueError(
                "predict draws other images on every device, and a sharded network (strategy=fsdp) is gone "
                "through together; a checkpoint is read under any other strategy"
            )
        indices = parts[0].tolist()
        if len(parts) == 1:
            return self.sample(indices)
        return Drawing(self, labels=parts[1].unique().tolist())(indices, labels=parts[1])

    @contextmanager
    def evaluating(self, weights: Weights | None = None) -> Iterator[None]:
        """The network without dropout, with the averaged weights or its own, as `compute_as` said.

        Autocast forgets what it has converted of some weights before others take their place.

        Args:
            weights: None for those of the block around this one; the averaged ones where there is none.
        """
        was_training, around = self.network.training, self._weights
        self._weights = weights = weights or around or "ema"
        self.network.eval()
        try:
            with ExitStack() as stack:
                stack.callback(torch.clear_autocast_cache)
                if self.is_sharded and torch.is_inference_mode_enabled():  # see `without_inference_mode`
                    stack.enter_context(torch.inference_mode(False))
                    stack.enter_context(torch.no_grad())
                average = self.ema
                stack.enter_context(average.swapped_in() if weights == "ema" else average.swapped_out())
                torch.clear_autocast_cache()
                stack.enter_context(self.computing.autocast(self.device))
                if self._compiled:
                    stack.enter_context(torch.compiler.set_stance("force_eager"))
                yield
        finally:
            self._weights = around
            self.network.train(was_training)

    # How the network is computed

    @property
    def num_parameters(self) -> int:
        """Of the network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def _input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network sees: x_t, and the image beside it."""
        channels, height, width = self.image_shape
        return channels + self.condition_channels, height, width

    @cached_property
    def flops_per_image(self) -> float:
        """See `ddpm.runtime.arithmetic.flops_per_image`."""
        return flops_per_image(self.network, self._input_shape)

    @cached_property
    def activation_bytes(self) -> float:
        """See `ddpm.runtime.arithmetic.activation_bytes`."""
        return activation_bytes(self.network, self._input_shape)

    @cached_property
    def training_bytes(self) -> float:
        """See `ddpm.runtime.arithmetic.training_bytes`."""
        return training_bytes(self.network, self._input_shape)

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

    def compile_network(self, *, cuda_graphs: bool = False) -> None:
        """Compile the training step's use of the network. Samples and validation, whose batches have other
        sizes, use it as it is; so do checkpoints.

        Args:
            cuda_graphs: have a GPU start all kernels of a pass by one call. A pass then leaves its output and
                gradients where the last one did, so they have to be done with before the next.

        Raises:
            ValueError: where it is sharded.
        """
        if self.is_sharded:
            raise ValueError(NOT_COMPILED)
        self.network.compile(options={"triton.cudagraphs": True} if cuda_graphs else None)
        self._compiled = True

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.settle(self)
        checkpoint["nonfinite"] = self.guard.state_dict()
        checkpoint["ema"] = self.ema.state_dict()
        checkpoint["timesteps"] = self.timesteps.state_dict()
        checkpoint["training"] = self._training_state()
        checkpoint["config"] = self.config
        checkpoint["data"] = self.data
        checkpoint["wandb_id"] = next(
            (logger.run_id for logger in self.trainer.loggers if isinstance(logger, WandbLogger)), None
        )

    def _training_state(self) -> dict[str, Any]:
        """What a training step leaves behind beside weights and averages, and the next row, validation or
        schedule needs. Every rank must call it.
        """
        return {
            "sums": state_of(self._sums(), self.device),
            "learning_rate": self.learning_rate,
            "images_per_step": self.images_per_step,
            "validated_step": self.validated_step,
            "plateau_step": self._plateau_step,
            "metrics": {name: float(value) for name, value in self.trainer.callback_metrics.items()},
        }

    def _sums(self) -> dict[str, RunningMean]:
        return {"train_loss": self.train_loss, "gradient_norm": self.gradient_norm}

    def _go_on_from(self, state: dict[str, Any]) -> None:
        """Stand where a checkpoint's training stood, and make up what its step still lacks.

        Args:
            state: of `_training_state`; empty of an earlier version's, of which nothing is made up.
        """
        self._seen.clear()
        self._measured.clear()
        load_state(self._sums(), state.get("sums", {}), self.global_rank)
        self.learning_rate = state.get("learning_rate", self.learning_rate)
        self.images_per_step = state.get("images_per_step", self.images_per_step)
        self.validated_step = state.get("validated_step", self.trainer.global_step)
        self._plateau_step = state.get("plateau_step", self.trainer.global_step)
        metrics = state.get("metrics", {})
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        if state:
            make_up_step(self.trainer, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Where the learning-rate schedule is another than the checkpoint's, it begins at its own step 0."""
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        self._continues = checkpoint.get("training", {}) if fitting else None
        average = {"num_updates": 0, "parameters": checkpoints.averaged_weights(checkpoint)}
        self.ema.load_state_dict(checkpoint.get("ema") or average)
        self.sigma_rel = checkpoint.get("average", {}).get("sigma_rel")
        self.timesteps.load_state_dict(checkpoint.get("timesteps", {}))
        self.guard.load_state_dict(checkpoint.get("nonfinite", {}))
        theirs, ours = checkpoint.get("config") or {}, self.config or {}
        if "lr_schedule" in theirs and theirs["lr_schedule"] != ours.get("lr_schedule"):
            checkpoint["lr_schedulers"] = []
            self._begins_lr_schedule = True

    def start_from(self, weights: dict[str, Any]) -> None:
        """Take over the state of a network, for this one and its average alike."""
        self.network.load_state_dict(weights)
        self.ema.reset()

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # theirs is no plain classmethod
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        allow_targets: Sequence[str] = (),
        **arguments: Any,
    ) -> Self:
        """Load a module from a checkpoint.

        The framework's checkpoints hold the configuration that the module is built again from. For a module
        that was made by hand, give `network=`, `schedule=`, `image_shape=` and what else its constructor was
        given.

        Args:
            checkpoint_path: a file.
            map_location: a device; by default the CPU, or for a module that was made by hand the one that its
                weights lay on.
            hparams_file, weights_only: as Lightning takes them, for a module that was made by hand; what the
                framework writes is always read without code. weights_only=False runs the code in a file, and
                checks nothing.
            strict: whether the network's weights must be those of the checkpoint, all of them; they must
                unless it is False.
            allow_targets: packages of your own that the module was built from.
            arguments: of the constructor, in place of what the configuration says.

        Raises:
            ddpm.errors.UsageError: where the configuration cannot be built.
            ValueError: where there is none, and no network.
        """
        if "network" in arguments:
            given: Any = checkpoint_path
            if weights_only is not False and (path := Path(checkpoint_path)).is_file():
                # Lightning would take a damaged one, and the head of one in parts for all of it
                found = checkpoints.load(path, "checkpoint_path", whole=False)
                if checkpoints.parts.KEY in found:
                    given = io.BytesIO()
                    torch.save(checkpoints.load(path, "checkpoint_path"), given)
                    given.seek(0)
            return super().load_from_checkpoint(
                given,
                map_location=map_location,
                hparams_file=hparams_file,
                strict=strict,
                weights_only=weights_only,
                **arguments,
            )
        from ddpm.training.building import rebuild  # which builds this class

        checkpoint = checkpoints.load(Path(checkpoint_path), "checkpoint_path")
        if checkpoint["config"] is None or checkpoint["data"] is None:
            raise ValueError(
                f"{checkpoint_path}: was made by hand and holds no configuration; give network=, schedule=, "
                "image_shape= and what else the module was made of"
            )
        module: Any = rebuild(checkpoint, allow_targets, strict=strict is not False, **arguments)
        return module if map_location is None else module.to(map_location)


def _are_integers(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 1 and part.dtype in (torch.int64, torch.int32)
