"""Arrays of images in a NumPy archive."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np

from ddpm.data import cache
from ddpm.data.decoding import Decoded, short
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_file
from ddpm.data.preparation import Found, prepared
from ddpm.data.settings import ImageSettings


@dataclass(frozen=True)
class Npz(ImageSettings):
    """The images of an npz file: uint8 [N, H, W, C], or [N, H, W] where they are grey; labels, if any.

    They are stored in the cache once, where all processes share them. Pickled objects are never loaded.

    Args:
        path: the file; `~` is the home directory.
        image_key: name of the array of images; None is the first that can be one.
        label_key: name of the array of labels, whole numbers [N]; None is the first that can be one, if any.
        validation_fraction: share of the images that is held out, in [0, 1).
        cache_dir: where prepared images are kept; None is $DDPM_CACHE or ~/.cache/ddpm.

    Raises:
        ValueError: for settings that cannot be; from `read`, where there is no such file or no array of
            images in it.
    """

    path: str | Path
    _: KW_ONLY
    image_key: str | None = None
    label_key: str | None = None

    def read(self) -> DataSet:
        file = existing_file(self.path).resolve()
        identity = {"npz": str(file), "arrays": [self.image_key, self.label_key]}
        return prepared(self, file.stem, identity, [cache.state(file)], lambda _: self._find(file))

    def _find(self, file: Path) -> Found:
        arrays = self._arrays(file)
        images = self._chosen("image_key", self.image_key, arrays, _are_images)
        images = images.reshape(*images.shape[:3], -1)
        count, height, width, channels = images.shape
        labels, classes = None, None
        others = {name: array for name, array in arrays.items() if _are_labels(array, count)}
        if self.label_key is not None or others:
            known = arrays if self.label_key is not None else others
            chosen = self._chosen("label_key", self.label_key, known, lambda array: _are_labels(array, count))
            values, labels = np.unique(chosen, return_inverse=True)
            classes = [str(value) for value in values]
        mode = "L" if channels == 1 else "RGB"

        def read(chosen: Sequence[int]) -> Iterator[Decoded]:
            for index in chosen:
                yield Decoded(images[index].transpose(2, 0, 1), mode, (height, width))

        return Found(
            [f"image {index}" for index in range(count)],
            read,
            positions=scattered(count),
            label=lambda kept: (None if labels is None else labels[kept], classes),
            nothing=f"data.path={self.path} holds no images",
            channels=channels,
        )

    def _arrays(self, file: Path) -> dict[str, np.ndarray]:
        try:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is none, or a damaged one")  # NumPy would take it for a pickled object
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except Exception as error:  # a damaged archive raises whatever its parts raise
            if "allow_pickle" in str(error):
                raise ValueError(
                    f"data.path={self.path} holds pickled objects, which could run any code and are not "
                    "read; save plain arrays"
                ) from error
            raise ValueError(f"data.path={self.path} could not be read as npz ({short(error)})") from error

    def _chosen(
        self, key: str, name: str | None, arrays: dict[str, np.ndarray], fits: Callable[[np.ndarray], bool]
    ) -> np.ndarray:
        found = [array for own, array in arrays.items() if name in (None, own) and fits(array)]
        if found:
            return found[0]
        wanted = "images, uint8 [N, H, W, 1 or 3] or [N, H, W]"
        if key == "label_key":
            wanted = "labels, a whole number for each image"
        held = ", ".join(f"{own} {array.dtype} {list(array.shape)}" for own, array in arrays.items())
        raise ValueError(
            f"data.{key}={'null' if name is None else name}: {self.path} has no such array of {wanted}; "
            f"it holds {held or 'nothing'}"
        )


def _are_images(array: np.ndarray) -> bool:
    return (
        array.dtype == np.uint8
        and array.size > 0
        and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)))
    )


def _are_labels(array: np.ndarray, count: int) -> bool:
    return array.shape == (count,) and np.issubdtype(array.dtype, np.integer)
