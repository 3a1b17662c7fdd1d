"""Where a step that is not finite first is so: its images, weights, layers, losses and gradients in turn."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm.data.batches import Batch
from ddpm.random import Purpose, Stream, seed_dropout
from ddpm.training.gradients import norms
from ddpm.training.nonfinite.report import Report, write
from ddpm.training.shards import parts


@dataclass(frozen=True)
class Seen:
    """What a micro-batch of a step was computed from.

    Attributes:
        batch: the images, labels and their indices.
        micro_batch: its number within the step.
        seed: that its noise and dropout are drawn from.
        t: int64 [B].
        losses: of each image [B], without gradient.
        loss: that was to be minimised, a scalar without gradient.
    """

    batch: Batch
    micro_batch: int
    seed: int
    t: Tensor
    losses: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Step:
    """An optimizer step on this rank.

    Attributes:
        seen: its micro-batches.
        norm: of all gradients.
        norms: of each of them [N], after the reduction over ranks.
        present: numbers of the network's parameters that have them.
        scaled: whether the losses had float16's scale.
    """

    seen: list[Seen]
    norm: Tensor
    norms: Tensor
    present: list[int]
    scaled: bool = False

    @property
    def number(self) -> int:
        """From 1, as checkpoints and rows count."""
        return self.seen[-1].batch.step + 1


@dataclass(frozen=True)
class Found:
    """What looking for the place gave.

    Attributes:
        words: what is not finite, and where.
        lasts: whether a weight or buffer is not finite, which the next step would find again.
    """

    words: str
    lasts: bool = False


def found_by_all(module: Any, step: Step, *, report: bool = True) -> Found:
    """Look at a step on every rank, each at its own part; every rank must call it, and all get the same.

    Args:
        module: that is trained; its weights must be those that the step was computed with.
        step: that is not finite.
        report: write what is known into the run directory, on each rank that found something of its own.
    """
    trainer, layers = module.trainer, Layers()
    own: Found | None
    try:
        own = look(module, step, layers)
    except Exception as error:  # a device that is out of memory, say: the step is bad all the same
        own = Found(f"what is not finite could not be looked for ({type(error).__name__}: {error})")
    everyone: list[Found | None] = [own]
    if trainer.world_size > 1:
        everyone = [None] * trainer.world_size
        torch.distributed.all_gather_object(everyone, own)
    said = {rank: found for rank, found in enumerate(everyone) if found is not None}
    # a weight of which one rank holds the part that is not finite spoils what the others compute with it
    lasting = [rank for rank, found in said.items() if found.lasts]
    rank = (lasting or [*said] or [0])[0]
    found = everyone[rank] or _in_gradients(module, step)
    words = found.words
    weights = norms(list(module.network.parameters()))[1] if report else None  # of all ranks, where sharded
    if trainer.world_size > 1:
        nobody = "; no rank finds it in its own part" if everyone[rank] is None else f", on rank {rank}"
        words += nobody
    if weights is not None:
        writes = own is not None or (everyone[rank] is None and trainer.is_global_zero)
        again = f"_rollback_{module.guard.rollbacks}" if module.guard.rollbacks else ""
        directory = Path(trainer.default_root_dir) / "nonfinite" / f"step_{step.number:08d}{again}"
        if writes:
            write(directory, _report(module, step, (own or found).words, layers, weights.tolist()))
        words += f". {directory} holds the report"
    return Found(words, any(one is not None and one.lasts for one in everyone))


def look(module: Any, step: Step, layers: "Layers") -> Found | None:
    """The first thing that is not finite in this rank's part of a step; None where there is none.

    The step's forward and backward pass are made again, with the same noise and dropout. Through a network of
    which each rank holds a part all go together, whatever one of them has found already, and forward only:
    the norms of the gradients, which all know, say the rest.
    """
    found = _in_images(step) or _in_weights(module)
    for seen in step.seen:
        if found is None or module.is_sharded:
            found = _in_forward_pass(module, seen, layers, found)
    if found is not None or module.is_sharded:
        return found
    for seen in step.seen:
        if not math.isfinite(float(seen.loss)):
            return Found(f"the mean of the losses is {float(seen.loss)}, and each of them finite")
    for seen in step.seen:
        with _as_in(module, seen):
            scaler = getattr(module.trainer.precision_plugin, "scaler", None) if step.scaled else None
            if said := _first_gradient(module, seen, 1.0 if scaler is None else scaler.get_scale()):
                return Found(said)
    return None


def _in_images(step: Step) -> Found | None:
    for seen in step.seen:
        for i, image in enumerate(seen.batch.x_0):
            if bad := _bad(image):
                return Found(f"{_image(seen, i)} holds {_some(bad, image.numel())} that are not finite")
    return None


def _in_weights(module: Any) -> Found | None:
    """In what this rank holds of them."""
    for kind, named in (
        ("weight", module.network.named_parameters()),
        ("buffer", module.network.named_buffers()),
    ):
        for name, value in named:
            (held,) = parts([value])
            if value.is_floating_point() and (bad := _bad(held)):
                words = f"the {kind} {name} holds {_some(bad, value.numel())} that are not finite"
                return Found(words, lasts=True)
    return None


def _in_forward_pass(module: Any, seen: Seen, layers: "Layers", found: Found | None) -> Found | None:
    """Look at a micro-batch's way through the network, made again; what was found before stays."""
    with _as_in(module, seen), layers.watching(module.network):
        losses = _losses(module, seen)
    if found is not None:
        return found
    if layers.first is not None:
        layer, sample = layers.first
        where = "" if sample is None else f", first for {_image(seen, sample)}"
        return Found(f"{layer}{where}")
    for of in (seen.losses, losses.detach()):
        for place, loss in enumerate(of.tolist()):
            if not math.isfinite(loss):
                words = f"the loss of {_image(seen, place)} is {loss}, and the network's output finite"
                return Found(words)
    return None


def _in_gradients(module: Any, step: Step) -> Found:
    """What the gradients of all ranks together say."""
    norms = _norms(module, step)
    bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
    again = "computed again it is finite: something changed it in between, or the device erred"
    again = "" if module.is_sharded else f"; {again}"
    if not bad:
        name = max(norms, key=lambda one: norms[one])
        return Found(
            f"the norm of the gradients is beyond float32; that of {name} is the largest, {norms[name]:.3g}"
        )
    if len(bad) == len(norms) > 1:
        return Found(f"every gradient is not finite{again}")
    more = f" and of {len(bad) - 1} others" if len(bad) > 1 else ""
    return Found(f"the gradient of {bad[-1]}{more} is not finite{again}")


class Layers:
    """The layers of a network as a forward pass goes through them.

    Attributes:
        first: the first whose output, or what it is given, is not finite: in words, and the first sample [B]
            where it is; None as long as all are finite.
        largest: the largest absolute value of each one's output, in the order in which they are computed.
    """

    def __init__(self) -> None:
        self.first: tuple[str, int | None] | None = None
        self.largest: dict[str, float] = {}

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Within the block each use of the network is looked at."""
        handles = []
        for name, layer in network.named_modules():
            shown = f"{name or 'the network'} ({type(layer).__name__})"
            handles.append(layer.register_forward_pre_hook(partial(self._given, shown)))
            handles.append(layer.register_forward_hook(partial(self._gave, shown)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _given(self, name: str, layer: nn.Module, inputs: Any) -> None:
        self._look(f"what {name} is given is not finite, and no layer before it gave such", inputs)

    def _gave(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in _tensors(output):
            self.largest[name] = max(self.largest.get(name, 0.0), float(tensor.abs().amax()))
        self._look(f"the output of {name} is not finite, and what it was given is", output)

    def _look(self, words: str, values: Any) -> None:
        if self.first is not None:
            return
        for tensor in _tensors(values):
            finite = tensor.isfinite()
            if not finite.all():
                samples = finite.flatten(1).all(1) if tensor.ndim > 1 else finite
                self.first = words, samples.tolist().index(False) if tensor.ndim else None
                return


def _first_gradient(module: Any, seen: Seen, scale: float) -> str | None:
    """The first gradient of this micro-batch on the way back whose norm is not finite, in words."""
    named = [(name, p) for name, p in module.network.named_parameters() if p.requires_grad]
    bad: list[str] = []

    def note(name: str, gradient: Tensor) -> None:
        if _bad(gradient):
            bad.append(f"the gradient of {name} is not finite, the first on the way back")
        elif _bad(torch.linalg.vector_norm(gradient)):
            most = f"it reaches {float(gradient.abs().max()):.3g}"
            bad.append(
                f"the norm of the gradient of {name} is beyond float32, the first on the way back; {most}"
            )

    handles = [parameter.register_hook(partial(note, name)) for name, parameter in named]
    try:
        loss = (module.timesteps.weight(seen.t, module.schedule) * _losses(module, seen)).mean()
        # not `backward`, which would add to the gradients, and have other ranks reduce them
        torch.autograd.grad(loss * scale, [parameter for _, parameter in named], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return bad[0] if bad else None


def _losses(module: Any, seen: Seen) -> Tensor:
    """[B], with noise and dropout as they were."""
    batch = seen.batch
    stream = Stream(seen.seed, Purpose.NOISE, module.device)
    eps = stream.normal(batch.step, batch.indices, module.image_shape)
    seed_dropout(seen.seed, batch.step, seen.micro_batch, module.global_rank, module.device)
    losses: Tensor = module.losses(batch.x_0, seen.t, eps, batch.labels, batch.condition)
    return losses


@contextmanager
def _as_in(module: Any, seen: Seen) -> Iterator[None]:
    """Compute as the training step did, also from within a validation, and leave buffers as they are."""
    network, was_training = module.network, module.network.training
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.compiler.set_stance("force_eager"),
            module.trainer.precision_plugin.train_step_context(),
        ):
            yield
    finally:
        network.train(was_training)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])


def _report(module: Any, step: Step, words: str, layers: Layers, weights: list[float]) -> Report:
    trainer = module.trainer
    images = [
        {"micro_batch": seen.micro_batch, "index": index, "t": t, "loss": loss}
        for seen in step.seen
        for index, t, loss in zip(seen.batch.indices, seen.t.tolist(), seen.losses.tolist(), strict=True)
    ]
    gradients = _norms(module, step)
    names = [name for name, _ in module.network.named_parameters()]
    return Report(
        step=step.number,
        rank=trainer.global_rank if trainer.world_size > 1 else None,
        what=words,
        gradient_norm=float(step.norm),
        learning_rate=module.learning_rate,
        images=images,
        x_0=torch.cat([seen.batch.x_0 for seen in step.seen]),
        norms={
            name: {"weight": norm, "gradient": gradients.get(name)}
            for name, norm in zip(names, weights, strict=True)
        },
        layers=layers.largest,
        config=module.config,
        device=str(module.device),
        rows=Path(trainer.default_root_dir) / "metrics.csv",
    )


def _norms(module: Any, step: Step) -> Mapping[str, float]:
    """Of the gradients, as they were in the step, by parameter."""
    names = [name for name, _ in module.network.named_parameters()]
    return dict(zip((names[i] for i in step.present), step.norms.tolist(), strict=True))


def _image(seen: Seen, i: int) -> str:
    return f"image {seen.batch.indices[i]} of the batch (t={int(seen.t[i])})"


def _bad(value: Tensor) -> int:
    """How many numbers are not finite."""
    return int((~value.isfinite()).sum())


def _some(bad: int, of: int) -> str:
    return f"{bad} of {of} numbers"


def _tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in what a layer is given or gives, without gradient."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value.detach()
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _tensors(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _tensors(child)
