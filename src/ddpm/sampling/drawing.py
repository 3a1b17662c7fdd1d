"""Drawing images: a model's reverse process, from indices of images to x_0."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from ddpm.diffusion import Known
from ddpm.diffusion.condition import Condition, check_condition
from ddpm.diffusion.guidance import Beyond, Guidance
from ddpm.diffusion.samplers import OnStep, Sampler, random_steps, used_steps
from ddpm.diffusion.start import FromNoise, Start
from ddpm.diffusion.validity import check_request
from ddpm.random import BLOCK, Purpose, Stream
from ddpm.sampling.conditions import in_turn
from ddpm.sampling.model import Conditions, Model, Weights


class Drawing:
    """How a model draws images: checked here, then the same for any number of batches.

    Image i starts from noise keyed by (seed, i), whatever the batch it is drawn in.

    Args:
        model: that draws.
        seed: of the noise.
        sampler: another reverse process than the model's own.
        weights: "ema", the averaged ones, which are the network's own where no average is kept; or "raw", the
            network's own. None for those that the model is evaluated with just now, or the averaged ones.
        labels: the classes that images take in turn, -1 for none; by default those that belong to the
            conditions, or every class.
        condition: what images are conditioned on beside the class, in turn, or from their indices; by default
            the model's `conditions`.
        guidance: another than the model's own.
        start: where the reverse process starts; by default from noise.
        known: pixels that the images shall have, [C, H, W] or broadcasting with it.
        shared_t: a timestep at which all images have the x_t of image 0 (Ho et al. 2020, section 4.3 and
            figure 7): down to it they take its noise, from there on each its own.
        same_noise: whether all images take the noise of image 0 on their way, so that nothing but what they
            start from sets them apart.

    Raises:
        ValueError: where the seed, the weights, a label, the start, the mask or `shared_t` does not fit.
    """

    def __init__(
        self,
        model: Model,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        weights: Weights | None = None,
        labels: Sequence[int] | None = None,
        condition: Condition | Conditions | None = None,
        guidance: Guidance | None = None,
        start: Start | None = None,
        known: Known | None = None,
        shared_t: int | None = None,
        same_noise: bool = False,
    ):
        if weights not in (None, *get_args(Weights)):
            raise ValueError(f"weights={weights}: must be {' or '.join(get_args(Weights))}")
        if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed < 2**63:
            raise ValueError(f"seed={seed}: must be a whole number of at least 0 and below 2**63")
        self.model = model
        self.seed = int(seed)
        self.sampler = sampler or model.sampler
        self.weights = weights
        self.labels = labels
        if isinstance(condition, Condition):
            self._check_condition(condition)
        self.conditions = in_turn(condition) or model.conditions
        self.guidance = guidance or model.guidance
        self.start: Start = start or FromNoise()
        self.known = known
        self.shared_t = shared_t
        self.same_noise = same_noise
        _, height, width = model.image_shape
        check_request(
            schedule=model.schedule,
            sampler=self.sampler,
            guidance=self.guidance,
            start_t=self.start.t,
            labels=labels,
            num_classes=model.num_classes,
            condition_drop=model.condition_drop,
            image_size=(height, width),
            mask_size=None if known is None else (known.mask.shape[-2], known.mask.shape[-1]),
        )
        if shared_t is not None:
            self._check_shared(shared_t)
            if same_noise:
                raise ValueError(
                    f"shared_t={shared_t}: images that share x_t and the noise below it are one image; leave "
                    "same_noise out"
                )

    @property
    def timesteps(self) -> list[int]:
        """At which the network is used, the highest first."""
        chain = self.sampler.chain(self.model.schedule, self.start.t)
        steps: list[int] = chain.timesteps.tolist()
        return steps[::-1]

    @property
    def nfe(self) -> int:
        """How often the network, or a guide, is evaluated for a batch, from x_t to x_0: twice where it is
        guided, which it may be within an interval alone.
        """
        guidance = self.guidance
        if not (guidance.needs_unconditional or guidance.needs_guide):
            return self.steps
        if not isinstance(guidance, Beyond) or guidance.interval is None:
            return 2 * self.steps
        lowest, highest = guidance.interval
        used = used_steps(self.sampler, self.model.schedule, self.start.t)
        return self.steps + sum(lowest <= t <= highest for t in used)

    @property
    def steps(self) -> int:
        """How often `on_step` is called for a batch: once a step, also where guidance evaluates twice."""
        return self.sampler.nfe(self.model.schedule, self.start.t)

    @torch.inference_mode()
    def __call__(
        self, indices: Sequence[int], *, labels: Tensor | None = None, on_step: OnStep | None = None
    ) -> Tensor:
        """Draw these images at once.

        Args:
            indices: of the images.
            labels: int64 [len(indices)], the class of each, in place of the classes in turn.
            on_step: sees (t, x_t, predicted x_0) at every step.

        Returns:
            float32 [len(indices), C, H, W], on the model's device: in [-1, 1], but for latents.
        """
        model, device = self.model, self.model.device
        first = Stream(self.seed, Purpose.SAMPLE_START, device)
        stream = Stream(self.seed, Purpose.SAMPLE_STEP, device)

        # whose noise the images take as long as they share x_t; that of a step leads to the one below
        above = indices if self.shared_t is None else [0] * len(indices)
        below = [0] * len(indices) if self.same_noise else indices

        def noise(t: int, like: Tensor) -> Tensor:
            whose = below if self.shared_t is None or t <= self.shared_t else above
            return _normal(stream, t, whose, tuple(like.shape[1:]))

        x_t = self.start.x_t(
            model.schedule, above, lambda chosen: _normal(first, 0, chosen, model.image_shape)
        )
        own = labels_of(model, indices, self.labels, self.conditions)
        if labels is None and own is not None:
            labels = torch.tensor(own)
        denoiser = model.denoiser(
            None if labels is None else labels.to(device),
            condition=self.condition_of(indices),
            guidance=self.guidance,
            known=None if self.known is None else Known(*(part.to(device) for part in self.known)),
        )
        with model.evaluating(self.weights):
            x_0 = self.sampler(
                denoiser, model.schedule, x_t, noise=noise, start=self.start.t, on_step=on_step
            )
        return x_0.clamp(-1, 1) if not model.draws_latents else x_0

    def condition_of(self, indices: Sequence[int]) -> Condition | None:
        """What these images are conditioned on, on the model's device; None for a network that takes nothing.

        Raises:
            ValueError: where there is none for a network that takes one.
        """
        if not self.model.is_conditioned:
            return None
        if self.conditions is None:
            raise ValueError(
                "condition: the network is conditioned on more than the class, and no condition is given; "
                "give condition=, a ddpm.diffusion.condition.Condition of an image or a vector for each"
            )
        found = self.conditions(indices)
        self._check_condition(found)
        return found.to(self.model.device)

    def _check_condition(self, condition: Condition) -> None:
        model = self.model
        check_condition(condition, model.condition_channels, model.vector_size)
        if condition.image is not None and condition.image.shape[2:] != model.image_shape[1:]:
            (height, width), (_, high, wide) = condition.image.shape[2:], model.image_shape
            raise ValueError(
                f"condition: is {height}x{width} (height x width), and images of this run are {high}x{wide}; "
                "it must be as large as they are"
            )

    def _check_shared(self, t: int) -> None:
        highest = self.timesteps[0]
        if not 0 <= t <= highest:
            raise ValueError(f"shared_t={t}: the reverse process goes from t = {highest} down to 0")
        random = random_steps(self.sampler, self.model.schedule, self.start.t)
        if not random:
            raise ValueError(
                f"shared_t={t}: {type(self.sampler).__name__} as it is set draws no noise on its way, and "
                "one x_t leads to one image; use sampler=ancestral, or sampler=ddim sampler.eta=1"
            )
        if t < min(random):
            raise ValueError(
                f"shared_t={t}: below t = {min(random)} this sampler draws no noise, and one x_t leads to "
                f"one image; use shared_t={min(random)} or more"
            )
        num_classes = self.model.num_classes
        if num_classes is not None and len({*(self.labels or range(num_classes))}) > 1:
            raise ValueError("shared_t: images that share x_t are of one class; name it, as in labels=[0]")


def labels_of(
    model: Model,
    indices: Sequence[int],
    labels: Sequence[int] | None = None,
    conditions: Conditions | None = None,
) -> list[int] | None:
    """The class of each image: the labels in turn, again and again; by default those that belong to the
    conditions, which are the model's own if none are given, or every class. None where the network is
    unconditional.
    """
    if model.num_classes is None:
        return None
    conditions = conditions or model.conditions
    if labels is None and conditions is not None and (own := conditions.labels(indices)) is not None:
        return own
    turn = labels or range(model.num_classes)
    return [turn[i % len(turn)] for i in indices]


def _normal(stream: Stream, step: int, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian numbers for each index, neighbours or not: float32 [len(indices), *shape]."""
    if isinstance(indices, range) and indices.step == 1:
        return stream.normal(step, indices, shape)
    blocks = sorted({index // BLOCK for index in indices})
    drawn = [stream.normal(step, range(block * BLOCK, (block + 1) * BLOCK), shape) for block in blocks]
    rows = {block: i * BLOCK for i, block in enumerate(blocks)}
    return torch.cat(drawn)[[rows[index // BLOCK] + index % BLOCK for index in indices]]
