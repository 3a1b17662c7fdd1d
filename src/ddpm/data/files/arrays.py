"""Images that are kept one by one as NumPy arrays."""

import io

import numpy as np

from ddpm.data.pixels.decoding import Decoded, Encoded, from_array, short
from ddpm.data.pixels.shaping import Shaping

CHANNELS = (1, 3, 4)


def array_or_reason(source: Encoded | str, shaping: Shaping) -> Decoded | str:
    """The image in an npy file, [H, W], [H, W, C] or [C, H, W]; or the reason why there is none.

    Pickled objects are never loaded.
    """
    if isinstance(source, str):
        return source
    try:
        array = np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False)
        if array.ndim == 2:
            array = array[..., None]
        channels = CHANNELS if shaping.planes is None else (shaping.planes,)
        if array.ndim == 3 and array.shape[2] not in channels and array.shape[0] in channels:
            array = array.transpose(1, 2, 0)
        if array.ndim != 3 or array.shape[2] not in CHANNELS:
            return f"an array of shape {list(array.shape)}, which is no image"
        return from_array(array, shaping)
    except Exception as error:  # a damaged file raises whatever its parts raise
        return short(error)
