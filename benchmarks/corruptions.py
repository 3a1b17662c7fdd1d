"""Do the measures of quality rise when pictures become worse?

    python benchmarks/corruptions.py CIFAR10_FOLDER [--out DIR] [--n 5000] [--corrupted 2500]

FID, KID, precision and recall against `n` training pictures, of `n` other training pictures, of `n` test
pictures, and of the first of those others with noise, blur and JPEG at three strengths each. All is drawn
from fixed seeds. Features go to DIR as they come, figures as soon as a set is through, so that the same
command again continues where it was stopped, and larger numbers go on from smaller ones. Several processes
may share the features: `--only SET ...` has one compute those of some sets and end.
"""

import argparse
import io
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, ScalarFormatter
from PIL import Image
from scipy.ndimage import gaussian_filter

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.sources.folder import Folder
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.measures.frechet import bootstrapped, extrapolated
from ddpm.evaluation.measures.kid import kid
from ddpm.evaluation.measures.moments import gaussian
from ddpm.evaluation.measures.precision_recall import precision_recall
from ddpm.runtime.progress import Countdown
from ddpm.runtime.writing import whole, write_whole

Pixels = np.ndarray
"""uint8 [C, H, W]."""

SEED = 0
AT_ONCE = 25
"""Images that features are computed of together."""

FEWEST = 10
"""Images that FID is extrapolated from."""

REFERENCE, OTHERS, TEST, FIRST = "reference", "others", "test", "first of others"


def noise(image: Pixels, sigma: float, index: int) -> Pixels:
    """Gaussian noise of this standard deviation, in levels of 255, in every channel by itself."""
    drawn = np.random.default_rng((SEED, index)).normal(0, sigma, image.shape)
    return (image + drawn).round().clip(0, 255).astype(np.uint8)


def blur(image: Pixels, sigma: float, index: int) -> Pixels:
    """A Gaussian of this standard deviation, in pixels; the border is mirrored."""
    blurred = gaussian_filter(image.astype(np.float64), (0, sigma, sigma), mode="reflect")
    return blurred.round().astype(np.uint8)


def jpeg(image: Pixels, quality: float, index: int) -> Pixels:
    """Written as JPEG and read again."""
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


@dataclass(frozen=True)
class Corruption:
    """A way to make pictures worse.

    Attributes:
        apply: to an image, at a strength, whose index says what is drawn.
        strengths: the weakest first.
        label: of a strength, for people.
    """

    apply: Callable[[Pixels, float, int], Pixels]
    strengths: tuple[float, float, float]
    label: str


CORRUPTIONS = {
    "noise": Corruption(noise, (5, 15, 40), "Gaussian noise, {} of 255 levels"),
    "blur": Corruption(blur, (0.5, 1, 2), "Gaussian blur, {} pixels"),
    "jpeg": Corruption(jpeg, (50, 25, 10), "JPEG, quality {}"),
}
"""CIFAR-10 in JPEG files is often of quality 75 already: writing it so again changes next to nothing."""


@dataclass(frozen=True)
class Pictures:
    """A set to compute features of.

    Attributes:
        images: uint8 [N, C, H, W].
        corruption: its name; None leaves the images as they are.
        strength: of it.
    """

    images: np.ndarray
    corruption: str | None = None
    strength: float = 0

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, first: int, end: int) -> np.ndarray:
        """uint8 [K, C, H, W]."""
        images = self.images[first:end]
        if self.corruption is None:
            return np.ascontiguousarray(images)
        apply = CORRUPTIONS[self.corruption].apply
        return np.stack([apply(image, self.strength, first + i) for i, image in enumerate(images)])


def sets_of(data: DataSet, n: int, corrupted: int) -> dict[str, Pictures]:
    """All sets by name, those that the others need first.

    Raises:
        ValueError: where there are too few images.
    """
    train, test = data.train, data.validation
    assert isinstance(train, ImageSet)
    if len(train) < 2 * n or len(test) < n or not FEWEST <= corrupted <= n:
        raise ValueError(
            f"{len(train):,} training and {len(test):,} test pictures: --n {n} needs {2 * n:,} and {n:,}, "
            f"and --corrupted must be from {FEWEST} to {n:,}, not {corrupted:,}"
        )
    # of a larger number the first ones are those of a smaller: their features are kept
    order, test_order = (np.random.default_rng(SEED).permutation(len(part)) for part in (train, test))
    others = train.images[order[1::2][:n]]
    sets = {
        REFERENCE: Pictures(train.images[order[0::2][:n]]),
        OTHERS: Pictures(others),
        TEST: Pictures(test.images[test_order[:n]]),
    }
    for strength in range(3):
        for name, corruption in CORRUPTIONS.items():
            value = corruption.strengths[strength]
            sets[f"{name} {value:g}"] = Pictures(others[:corrupted], name, value)
    return sets


def features_of(name: str, pictures: Pictures, extractor: Extractor, out: Path) -> np.ndarray:
    """float32 [N, D]; what is in the file of the set already is not computed again."""
    path = out / f"{name.replace(' ', '_')}.npy"
    before = np.load(path) if path.exists() else np.empty((0, extractor.num_features), np.float32)
    if len(before) < len(pictures):
        rest = np.full((len(pictures) - len(before), extractor.num_features), np.nan, np.float32)
        with whole(path) as temporary:
            np.save(temporary, np.concatenate([before, rest]))
    kept = np.lib.format.open_memmap(path, "r+")[: len(pictures)]
    missing = np.isnan(kept).any(1)
    with Countdown(name, len(pictures), len(pictures) - int(missing.sum())) as countdown:
        for first in range(0, len(pictures), AT_ONCE):
            end = min(first + AT_ONCE, len(pictures))
            if missing[first:end].any():
                kept[first:end] = extractor(torch.from_numpy(pictures.rows(first, end))).cpu().numpy()
                missing[first:end] = False
                countdown.advance(len(pictures) - int(missing.sum()))
    kept.flush()
    return np.array(kept)


def figures_of(found: np.ndarray, reference: np.ndarray, replicates: int) -> dict[str, Any]:
    """What the measures make of features, float32 [N, D] and [M, D], in plain containers."""
    samples, others = torch.from_numpy(found), torch.from_numpy(reference)
    to = gaussian(others)
    distance, _ = bootstrapped(samples, to, replicates=replicates, seed=SEED)
    at_infinity = extrapolated(samples, to, seed=SEED)
    kernel = kid(samples, others)
    shares = precision_recall(samples, others)
    return {
        "n": len(samples),
        "fid": distance.value,
        "fid_standard_error": distance.standard_error,
        "fid_interval": list(distance.interval()),
        "fid_extrapolated": at_infinity.value,
        "fid_extrapolated_standard_error": at_infinity.standard_error,
        "kid": kernel.value,
        "kid_standard_error": kernel.standard_error,
        "precision": shares.precision,
        "recall": shares.recall,
    }


def settled(out: Path, settings: Mapping[str, Any]) -> None:
    """Note what features in a directory are of.

    Raises:
        ValueError: where they are of something else.
    """
    path = out / "features.json"
    if not path.exists():
        write_whole(path, json.dumps(settings, indent=2))
    elif json.loads(path.read_text()) != settings:
        raise ValueError(f"{path}: features there are of other settings; name another folder by --out")


def measured(
    sets: Mapping[str, Pictures], extractor: Extractor, out: Path, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Figures of each set but the reference, by its name; those in corruptions.json are kept, if the settings
    are theirs.
    """
    path = out / "corruptions.json"
    figures: dict[str, dict[str, Any]] = {}
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["settings"] == settings:
            figures = kept["sets"]
    reference = features_of(REFERENCE, sets[REFERENCE], extractor, out)
    corrupted = min(map(len, sets.values()))

    def keep(name: str, found: np.ndarray, corruption: str | None = None, strength: float = 0) -> None:
        if name not in figures:
            about = {"corruption": corruption, "strength": strength}
            figures[name] = about | figures_of(found, reference, settings["replicates"])
            write_whole(path, json.dumps({"settings": settings, "sets": figures}, indent=2))
        print(row(name, figures[name]), flush=True)

    print(HEAD, flush=True)
    for name, pictures in sets.items():
        if name == REFERENCE:
            continue
        found = features_of(name, pictures, extractor, out)
        keep(name, found, pictures.corruption, pictures.strength)
        if name == OTHERS:
            keep(FIRST, found[:corrupted])
    return figures


HEAD = (
    "| pictures | n | FID | its 95 % interval | extrapolated | KID x 1000 | precision | recall |\n"
    "|---|---|---|---|---|---|---|---|"
)


def row(name: str, found: Mapping[str, Any]) -> str:
    """Of a table."""
    low, high = found["fid_interval"]
    return (
        f"| {name} | {found['n']:,} | {found['fid']:.2f} | {low:.2f} to {high:.2f} | "
        f"{found['fid_extrapolated']:.2f} | {1000 * found['kid']:.2f} ± "
        f"{1000 * found['kid_standard_error']:.2f} | {found['precision']:.3f} | {found['recall']:.3f} |"
    )


def series(figures: Mapping[str, Mapping[str, Any]], corruption: str) -> list[Mapping[str, Any]]:
    """Figures of a corruption from none to the strongest."""
    found = [one for one in figures.values() if one["corruption"] == corruption]
    strengths = CORRUPTIONS[corruption].strengths
    return [figures[FIRST], *sorted(found, key=lambda one: strengths.index(one["strength"]))]


def rises(figures: Mapping[str, Mapping[str, Any]], corruption: str, measure: str) -> bool:
    """Whether a measure is larger at every strength than at the one before."""
    values = [one[measure] for one in series(figures, corruption)]
    return all(after > before for before, after in pairwise(values))


def draw(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """FID and KID against strength, a line for each corruption, beside undamaged pictures."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axes, measure, scale in zip(figure.subplots(1, 2), ("fid", "kid"), (1, 1000), strict=True):
        for place, (name, corruption) in enumerate(CORRUPTIONS.items()):
            found = series(figures, name)
            axes.errorbar(
                range(len(found)),
                [scale * one[measure] for one in found],
                [scale * 1.96 * one[f"{measure}_standard_error"] for one in found],
                color=f"C{place}", marker="o", markersize=4, capsize=3,
                label=corruption.label.format(", ".join(f"{each:g}" for each in corruption.strengths)),
            )  # fmt: skip
        for name, style in ((OTHERS, ":"), (TEST, "--")):
            what = "other training" if name == OTHERS else name
            label = f"{figures[name]['n']:,} {what} pictures, undamaged"
            axes.axhline(scale * figures[name][measure], color="grey", linestyle=style, label=label)
        axes.set_xticks(range(4), ["undamaged", "weak", "medium", "strong"])
        axes.grid(alpha=0.3)
    left, right = figure.axes
    left.set(yscale="log", title="FID")
    left.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1)))
    left.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
    right.set_yscale("symlog", linthresh=1)
    right.set_title("KID x 1000, linear below 1")
    right.yaxis.set_major_formatter(ScalarFormatter())
    n = figures[FIRST]["n"]
    figure.suptitle(f"The same {n:,} pictures in every point, with 95 % intervals", fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="CIFAR-10 as images, in folders train and test")
    parser.add_argument("--out", type=Path, default=Path("corruptions"))
    parser.add_argument("--n", type=int, default=5000, help="pictures of the reference and of the others")
    parser.add_argument("--corrupted", type=int, default=2500, help="pictures that are made worse")
    parser.add_argument("--replicates", type=int, default=20, help="of the bootstrap")
    parser.add_argument("--bf16", action="store_true", help="let the network compute in bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", metavar="SET", help="compute features of these sets and end")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = Folder(path=arguments.folder).read()
    try:
        sets = sets_of(data, arguments.n, arguments.corrupted)
        if unknown := set(arguments.only or ()) - set(sets):
            raise ValueError(f"--only {' '.join(sorted(unknown))}: the sets are {', '.join(sets)}")
        extractor = Inception(bf16=arguments.bf16)
        extractor.prepare(data, arguments.device)
        settings = {
            "data": data.fingerprint,
            "seed": SEED,
            "corruptions": {name: list(each.strengths) for name, each in CORRUPTIONS.items()},
            **extractor.about(),
        }
        settled(arguments.out, settings)
    except ValueError as error:
        parser.error(str(error))
    if arguments.only:
        for name in arguments.only:
            features_of(name, sets[name], extractor, arguments.out)
        return
    numbers = {key: getattr(arguments, key) for key in ("n", "corrupted", "replicates")}
    figures = measured(sets, extractor, arguments.out, {**settings, **numbers})
    for name in CORRUPTIONS:
        for measure in ("fid", "fid_extrapolated", "kid"):
            said = "rises at every strength" if rises(figures, name, measure) else "does not always rise"
            print(f"{name}: {measure} {said}")
    draw(figures, arguments.out / "corruptions.png")


if __name__ == "__main__":
    main()
