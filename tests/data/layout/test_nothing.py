"""What is said of a place without images names what to type."""

import pytest

from ddpm.data.layout.nothing import nothing_here

SAID = {
    "it holds no files": ([], ["Thumbs.db"]),
    "use data=arrays": (
        ["x_train.npz"], ["train_32x32.mat"], ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"],
        ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"], ["train", "test", "meta"],
        ["a/x.npy", "a/y.npy"], ["all.h5"],
    ),
    "data=archive data.path=SET/photos.zip": (["photos.zip"], ["photos.zip", "README.md"]),
    "use data=stream": (["0.tar", "1.tar"], ["train-0.parquet"]),
    "unpack them into one folder": (["a.zip", "b.zip"], ["a.7z", "b.7z"]),
    "none of the 2 files in it can be read": (["a.txt", "b.txt"], ["a.png", "b.npz"], ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("message", SAID)
def test_nothing_here(message: str):
    for names in SAID[message]:
        said = nothing_here("SET", names)
        assert message in said, names
        assert said.startswith("data.path=SET")
        assert "\n" not in said
