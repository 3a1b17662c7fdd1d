"""What to say of a place where no image is found."""

import re
from collections.abc import Sequence

from ddpm.data.layout.names import IMAGES, is_clutter, listed, suffix

ARRAYS = frozenset({"npz", "npy", "mat", "h5", "hdf5", "idx", "pkl", "pickle"})
SHARDS = frozenset({"tar", "parquet", "arrow"})
ARCHIVES = frozenset({"zip", "tgz", "tar", "gz", "bz2", "xz", "7z", "rar"})

BATCH = re.compile(r"((data_batch_\d|test_batch|batches\.meta)|.*-idx\d-ubyte)(\.gz)?")
"""Names of the files of CIFAR-10 and of MNIST."""

LABELLED = re.compile(r"train|test|meta|file.txt~")
"""Names of the files of CIFAR-100, where there are no others."""


def nothing_here(path: str, names: Sequence[str]) -> str:
    """A message that no image is there, and what to type for what is there instead.

    Args:
        path: of a folder or an archive.
        names: of the files in it.
    """
    seen = [name for name in names if not is_clutter(name)]
    if not seen:
        return f"data.path={path}: it holds no files; name a folder or an archive with images in it"
    files = [(name, name.rpartition("/")[2], suffix(name)) for name in seen]
    if any(end in IMAGES for _, _, end in files):
        return _unreadable(path, names)
    arrays = [name for name, base, end in files if end in ARRAYS or BATCH.fullmatch(base)]
    if not arrays and all(LABELLED.fullmatch(base) for _, base, _ in files):
        arrays = seen
    if arrays:
        return f"data.path={path} holds arrays, no image files ({listed(arrays, 2)}); use data=arrays"
    shards = [name for name, _, end in files if end in SHARDS]
    archives = [name for name, _, end in files if end in ARCHIVES]
    if len(archives) == 1:
        return (
            f"data.path={path} holds an archive, no image files; name it, as in data=archive "
            f"data.path={path}/{archives[0]}; if it is within another archive, unpack that first"
        )
    if shards:
        return f"data.path={path} holds shards, no image files ({listed(shards, 2)}); use data=stream"
    if archives:
        return (
            f"data.path={path} holds archives, no image files ({listed(archives, 2)}); unpack them into one "
            "folder, or name one by data=archive"
        )
    return _unreadable(path, names)


def _unreadable(path: str, names: Sequence[str]) -> str:
    return (
        f"data.path={path}: none of the {len(names):,} files in it can be read as an image; name a folder or "
        "an archive with images in it"
    )
