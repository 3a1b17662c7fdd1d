"""A stand-in for a Mac's GPU: a device that refuses what MPS refuses, and computes the rest on the CPU.

    with mps() as gpu:
        module.to(gpu.device)
        ...
        assert not gpu.waits

WriteError are float64 on the device, operators that have no MPS kernel, and tensors of two devices in one
operator. The messages are those of torch. Its type is not "mps" but `TYPE`, since torch lets Python stand in
for an unknown device only: code that asks for the type "mps" by name is not reached, and code that asks
whether the type is "cpu" is.

Which operators MPS lacks is read from torch's own list, `native_functions.yaml` as `torchgen` ships it with
the torch that is installed: those with a CPU kernel and neither an MPS kernel nor one composed of other
operators. It knows nothing of kernels that refuse a type, or of wrong numbers: a Mac would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from ddpm.random import Stream

TYPE = "mps_stand_in"

DOUBLE = (torch.float64, torch.complex128)

ANY_DEVICE = {"aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::_index_put_impl_"}
"""Operators that take tensors of two devices."""

WAITS = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2"}
"""Operators whose result the host waits for, beside copies to the CPU."""


class OnGPU(Tensor):
    """A tensor of the device, over a CPU tensor that holds its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGPU":
        if held.dtype in DOUBLE:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
                "Please use float32 instead."
            )
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(TYPE, 0),
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _current().run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"OnGPU({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # as a file is read where there is no such device

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnGPU":
        return self.detach().clone().requires_grad_(self.requires_grad)


class StandIn(TorchDispatchMode):
    """Runs what concerns the device.

    Attributes:
        device: the device.
        waits: names of the operators that made the host wait for it, in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device(TYPE, 0)
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if any(
            isinstance(leaf, OnGPU) or (isinstance(leaf, torch.device) and _is_ours(leaf)) for leaf in leaves
        ):
            return self.run(func, args, kwargs)
        return func(*args, **kwargs)

    def run(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func._schema.name
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        if _lacks(func):
            raise NotImplementedError(
                f"The operator '{name}' is not currently implemented for the MPS device."
            )
        leaves = tree_leaves((args, kwargs))
        ours = any(isinstance(leaf, OnGPU) for leaf in leaves)
        theirs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnGPU)]
        if ours and name not in ANY_DEVICE and any(leaf.ndim for leaf in theirs):
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got mps:0 and cpu")
        leaves_device = "device" in kwargs and kwargs["device"] is not None and not _is_ours(kwargs["device"])
        copied_back = name == "aten::copy_" and not isinstance(args[0], OnGPU)
        masks = name == "aten::index" and any(
            isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in leaves[1:]
        )
        if ours and (leaves_device or copied_back or masks or name in WAITS):
            self.waits.append(name)
        found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if leaves_device or copied_back:
            return args[0] if copied_back else found
        # a view made in inference mode is an inference tensor only where its base is one
        inference = torch.is_inference_mode_enabled() and not (_is_view(func) and not args[0].is_inference())
        with torch.inference_mode(inference):
            found = tree_map(lambda leaf: OnGPU(leaf) if isinstance(leaf, Tensor) else leaf, found)
            return return_and_correct_aliasing(func, args, kwargs, found)


@contextmanager
def mps() -> Iterator[StandIn]:
    """A device that refuses what MPS refuses, while this lasts."""
    generator, swaps = torch.Generator, torch.__future__.get_swap_module_params_on_conversion()
    lifts = torch._C._only_lift_cpu_tensors()
    torch.Generator = _Generator
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that parameters stay the same objects
    torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(..., device=) copies from the CPU
    stand_in = StandIn()
    _active.append(stand_in)
    try:
        with stand_in:
            yield stand_in
    finally:
        _active.pop()
        torch.Generator = generator
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        torch._C._set_only_lift_cpu_tensors(lifts)


_active: list[StandIn] = []


def _current() -> StandIn:
    return _active[-1] if _active else StandIn()


class _Generator(torch.Generator):
    """Numbers of the device come from the CPU's generator."""

    def __new__(cls, device: torch.device | str = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu" if _is_ours(device) else device)


class _Module:
    """`torch.mps_stand_in`, which torch asks about its device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return bool(_active)

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        pass

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Hook(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return bool(_active)

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


# at once: autograd counts the devices at the first backward pass of a process
_setup_privateuseone_for_python_backend(TYPE, backend_module=_Module(), hook=_Hook())


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == TYPE


def _held(leaf: Any) -> Any:
    if isinstance(leaf, OnGPU):
        return leaf.held
    return torch.device("cpu") if isinstance(leaf, torch.device) and _is_ours(leaf) else leaf


@cache
def _operators() -> dict[str, dict[str, Any]]:
    """Name with overload -> its entry in torch's list."""
    text = files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text()
    entries = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].split("(")[0]: entry for entry in entries}


@cache
def _keys(operator: str) -> frozenset[str]:
    """The dispatch keys for which an operator has a kernel."""
    entry = _operators().get(operator)
    if entry is None:
        return frozenset({"CompositeExplicitAutograd"})  # of a library of its own
    if "structured_delegate" in entry:
        return _keys(entry["structured_delegate"])
    if "dispatch" not in entry:
        return frozenset({"CompositeImplicitAutograd"})
    return frozenset(key.strip() for keys in entry["dispatch"] for key in keys.split(","))


def _operator(func: OpOverload) -> str:
    name = func._schema.name.removeprefix("aten::")
    return f"{name}.{func._schema.overload_name}" if func._schema.overload_name else name


@cache
def _is_composite(func: OpOverload) -> bool:
    keys = _keys(_operator(func))
    return "CompositeImplicitAutograd" in keys and "MPS" not in keys


@cache
def _is_view(func: OpOverload) -> bool:
    return any(made.alias_info is not None and not made.alias_info.is_write for made in func._schema.returns)


@cache
def _lacks(func: OpOverload) -> bool:
    operator = _operator(func)
    base = func._schema.name.removeprefix("aten::")
    if any(key.startswith("CompositeExplicit") for key in _keys(operator)):
        helpers = [name for name in (f"_{base}", f"_{base}_helper") if name in _operators()]
        return any(_lacks_kernel(name) for name in helpers)
    return _lacks_kernel(operator)


def _lacks_kernel(operator: str) -> bool:
    keys = _keys(operator)
    return "CPU" in keys and not any(key == "MPS" or key.startswith("Composite") for key in keys)


def draw_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers on the stand-in are those of the CPU, so that what is made of them can be compared."""
    draw = Stream._draw

    def drawn(self: Stream, distribution: str, step: int, indices: range, shape: tuple[int, ...]) -> Tensor:
        if self.device.type == "cpu":
            return draw(self, distribution, step, indices, shape)
        return draw(Stream(self.seed, self.purpose), distribution, step, indices, shape).to(self.device)

    monkeypatch.setattr(Stream, "_draw", drawn)
