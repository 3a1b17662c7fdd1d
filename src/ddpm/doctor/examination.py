"""All checks of the mathematics, on the options that are given."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ddpm.doctor import (
    bound_checks,
    condition_checks,
    denoiser_checks,
    loss_checks,
    mixture_checks,
    precision_checks,
    process_checks,
    sampler_checks,
    spacing_checks,
)
from ddpm.doctor.case import Case, guarded
from ddpm.doctor.combinations import Catalogue, Cover, cover, validity


@dataclass(frozen=True)
class Examined:
    """What is examined: the options there are, and combinations in which every pair of them occurs."""

    catalogue: Catalogue
    cover: Cover


def examined(catalogue: Catalogue) -> Examined:
    """These options, with a cover of their pairs."""
    return Examined(catalogue, cover(catalogue, validity(catalogue)))


ROOMS: dict[str, Callable[[Examined], Iterator[Case]]] = {
    "forward process": lambda found: process_checks.cases(found.catalogue),
    "denoiser": lambda found: denoiser_checks.cases(found.catalogue),
    "condition": lambda found: condition_checks.cases(found.catalogue),
    "training": lambda found: loss_checks.cases(found.catalogue, found.cover.combinations),
    "precision": lambda found: precision_checks.cases(found.cover.combinations),
    "spacing": lambda found: spacing_checks.cases(found.catalogue),
    "sampling": lambda found: sampler_checks.cases(found.catalogue, found.cover.combinations),
    "bound": lambda found: bound_checks.cases(found.catalogue, found.cover.combinations),
    "mixture": lambda found: mixture_checks.cases(found.catalogue),
}
"""Every comparison that is made."""


def all_cases(found: Examined) -> list[Case]:
    """Of all rooms; one that cannot be set up fails by itself."""
    return [case for room, cases in ROOMS.items() for case in guarded(room, cases(found))]
