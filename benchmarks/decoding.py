"""What it costs to read a picture, and how far its pixels are from what other people's tools make of it.

    python benchmarks/decoding.py

Times are of one core's work, the best of some rounds, so that what else runs matters little. "At a fraction"
is the shortcut of the JPEG decoder that is not taken here: what it would save, and what it would cost.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from ddpm.data.decoding import decode
from ddpm.data.resizing import fit
from ddpm.data.shaping import Shaping

Pixels = np.ndarray
"""uint8 [H, W, 3]."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    speed(photographs, arguments.rounds)
    agreement(photographs)


def speed(photographs: Sequence[Image.Image], rounds: int) -> None:
    """Time of one core from a JPEG to bytes of the wanted size, without the shortcut and with it."""
    for size, wanted, count in (
        ((32, 32), 32, 100),
        ((2000, 1500), 256, 2),
        ((2000, 1500), 64, 2),
        ((2000, 1500), 32, 2),
    ):
        files = [jpeg(photograph, size) for photograph in photographs] * count
        whole = per_file(in_full, files, wanted, rounds)
        fraction = per_file(at_a_fraction, files, wanted, rounds)
        worst = max(np.abs(at_a_fraction(file, wanted) - in_full(file, wanted)).max() for file in files[:2])
        say(
            f"JPEG {size[0]}x{size[1]} to {wanted}",
            f"{whole * 1e3:.3f} ms; at a fraction {fraction * 1e3:.3f} ms, off by up to {worst}",
        )


def in_full(file: bytes, wanted: int) -> np.ndarray:
    """int [3, H, W]."""
    return decode(file, Shaping((wanted, wanted), 3)).pixels.astype(int)


def at_a_fraction(file: bytes, wanted: int) -> np.ndarray:
    """The same, decoded at no less than three times the wanted size."""
    with Image.open(io.BytesIO(file)) as opened:
        opened.draft(None, (3 * wanted, 3 * wanted))
        pixels = np.asarray(fit(opened.convert("RGB"), Shaping((wanted, wanted))))
    return pixels.transpose(2, 0, 1).astype(int)


def agreement(photographs: Sequence[Image.Image]) -> None:
    """Mean and worst difference of levels, of 255, from other tools' ways to the same size."""
    small = [photo.resize((round(256 * photo.width / photo.height), 256), 1) for photo in photographs]
    large = [enlarged(photograph, (2000, 1500)) for photograph in photographs]
    for name, pictures, wanted in (("256", small, 64), ("2000x1500", large, 256)):
        for tool, shaped in TOOLS.items():
            ours = [np.asarray(fit(picture, Shaping((wanted, wanted)))).astype(int) for picture in pictures]
            theirs = [shaped(picture, wanted) for picture in pictures]
            errors = np.abs(np.stack(ours) - np.stack(theirs))
            say(f"{name} to {wanted}, {tool}", f"mean {errors.mean():.2f}, worst {errors.max()}")


def torchvision(picture: Image.Image, wanted: int) -> Pixels:
    """Resize(wanted), CenterCrop(wanted): the shorter side first, whose partner is cut to whole pixels."""
    shorter = min(picture.size)
    width, height = (int(wanted * side / shorter) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - wanted) / 2), round((height - wanted) / 2)
    return np.asarray(resized.crop((left, top, left + wanted, top + wanted)))


def adm(picture: Image.Image, wanted: int) -> Pixels:
    """`center_crop_arr` of guided-diffusion: halves by boxes, then bicubic, then the middle."""
    while min(picture.size) >= 2 * wanted:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = wanted / min(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - wanted) // 2, (pixels.shape[1] - wanted) // 2
    return pixels[top : top + wanted, left : left + wanted]


def edm(picture: Image.Image, wanted: int) -> Pixels:
    """`dataset_tool.py --transform=center-crop` of EDM and StyleGAN: the middle first, then Lanczos."""
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    side = min(height, width)
    middle = pixels[(height - side) // 2 : (height + side) // 2, (width - side) // 2 : (width + side) // 2]
    return np.asarray(Image.fromarray(middle).resize((wanted, wanted), Image.Resampling.LANCZOS))


TOOLS: dict[str, Callable[[Image.Image, int], Pixels]] = {"torchvision": torchvision, "ADM": adm, "EDM": edm}


def enlarged(photograph: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of a photograph, at another size; at 2,000 pixels there is nothing fine left in it."""
    return fit(photograph, Shaping(size[::-1], resize="bicubic"))


def jpeg(photograph: Image.Image, size: tuple[int, int]) -> bytes:
    """A file with the grain that cameras leave."""
    pixels = np.asarray(enlarged(photograph, size)).astype(float)
    pixels += np.random.default_rng(0).normal(0, 4, (*pixels.shape[:2], 1))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def per_file(read: Callable[[bytes, int], object], files: Sequence[bytes], wanted: int, rounds: int) -> float:
    """Seconds of this process for one file."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        for file in files:
            read(file, wanted)
        found.append((time.process_time() - start) / len(files))
    return min(found)


def say(what: str, figure: str) -> None:
    print(f"{what:<36}{figure}", flush=True)


if __name__ == "__main__":
    main()
