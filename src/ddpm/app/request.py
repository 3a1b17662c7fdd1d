"""What samples or measurements in a directory were asked for, so that the same command goes on with them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm import bounded
from ddpm.app.same_run import leaves
from ddpm.errors import UsageError
from ddpm.runtime.writing import readable_json, write_whole

NAME = "request.json"
MOST_BYTES = 1 << 22
LAYOUT = 1

FREE = (
    "ckpt", "guidance.ckpt", "samples", "out", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "strategy",
    "timeout", "batch_size", "channels_last", "compile", "allow_targets", "data.path",
    "data.condition.path", "data.cache_dir",
    "data.cache_limit", "data.num_workers", "data.device_share",
    "data.micro_batch",
)  # fmt: skip
"""Keys that may change from start to start: where the work is done, and how much of it at once. Another batch
size or device rounds otherwise, below a level of grey.
"""

PLACES = ("ckpt", "guidance.ckpt", "samples", "data.path", "data.condition.path")
"""Those of them that say what is read, which is compared by its contents once it has been read."""

NAMED = 6
"""Differences that a message names."""


@dataclass(frozen=True)
class Request:
    """What a program was asked for.

    Attributes:
        config: its checked configuration.
        contents: fingerprints of the files that it reads, by key.
    """

    config: Mapping[str, Any]
    contents: Mapping[str, str]

    def is_of(self, config: Mapping[str, Any]) -> bool:
        """Whether a command that is given in the same job of a cluster is the one that asked for this."""
        here, there = dict(_leaves_of(config)), dict(_leaves_of(self.config))
        return not self.differences(config) and all(here.get(key) == there.get(key) for key in PLACES)

    def differences(self, config: Mapping[str, Any], contents: Mapping[str, str] | None = None) -> list[str]:
        """Where another request differs from this one, in words.

        Args:
            config: of the other.
            contents: of the other; None where its files have not been read yet.
        """
        if set(config) != set(self.config):
            return ["it is one of another program, or of another version"]
        here, there = dict(_compared(config)), dict(_compared(self.config))
        found = [
            f"{key} is {here.get(key)} here and {there.get(key)} there"
            for key in {**there, **here}
            if here.get(key) != there.get(key)
        ]
        for key in () if contents is None else {**self.contents, **contents}:
            if contents is not None and contents.get(key) != self.contents.get(key):
                found.append(f"the content of {key} is another")
        return found

    def texts(self) -> dict[str, str]:
        """What makes it, as text by name."""
        return dict(_compared(self.config))

    def refuse_another(
        self, directory: Path, config: Mapping[str, Any], contents: Mapping[str, str] | None = None
    ) -> None:
        """Refuse a command that asks for something else.

        Raises:
            UsageError: naming what differs.
        """
        if not (differing := self.differences(config, contents)):
            return
        more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
        raise UsageError(
            f"{directory}: holds what another command asked for: {', '.join(differing[:NAMED])}{more}; "
            "choose another directory"
        )

    def write(self, directory: Path) -> None:
        """Keep it in a directory.

        Raises:
            ddpm.runtime.writing.WriteError: where the disk refuses it.
        """
        values = {"layout": LAYOUT, "config": self.config, "contents": self.contents}
        write_whole(directory / NAME, readable_json(values))


def asked_in(directory: Path) -> Request | None:
    """The request that a directory is for, or None.

    Raises:
        UsageError: where it cannot be read.
    """
    file = directory / NAME
    if not os.path.lexists(file):
        return None
    values = bounded.json_values(file, MOST_BYTES)
    config, contents = values.get("config"), values.get("contents")
    if values.get("layout") != LAYOUT or not isinstance(config, dict) or not isinstance(contents, dict):
        raise UsageError(
            f"{file}: cannot be read, it is not as this version writes it; choose another directory"
        )
    return Request(config, contents)


def _leaves_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, node in config.items():
        yield from ((key, repr(value)) for key, value in leaves(name, node))


def _compared(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in _leaves_of(config):
        if not any(key == free or key.startswith(f"{free}.") for free in FREE):
            yield key, value
