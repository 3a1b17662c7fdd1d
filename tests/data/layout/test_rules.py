"""Random trees of parts, classes, strays and wrappers: what is made of them is what docs/data.md says.

The rules stand here once more, over plain paths and without a care for speed.
"""

from collections import Counter

from hypothesis import strategies as st
from laid_out import meant
from properties import short_and_long

PARTS = {"train": "train", "Training": "train", "val": "validation", "test": "test", "seg_train": "train",
         "seg_test": "test"}  # fmt: skip
BESIDE = {"extra"}
NAMES = [*PARTS, *BESIDE, "cat", "dog", "0", "10", "images", "猫"]


class RefusedError(Exception):
    pass


def folders(names: list[str]) -> set[str]:
    return {name.split("/")[0] for name in names if "/" in name}


def direct(names: list[str]) -> list[str]:
    return [name for name in names if "/" not in name]


def inside(names: list[str], folder: str) -> list[str]:
    return [name[len(folder) + 1 :] for name in names if name.startswith(f"{folder}/")]


def few(names: list[str]) -> bool:
    """Whether the images beside folders are strays: one, or at most a tenth of all."""
    return len(direct(names)) < len(names) and (
        len(direct(names)) <= 1 or 10 * len(direct(names)) <= len(names)
    )


def rest(folder: str) -> str:
    return "seg" if folder.startswith("seg_") else ""


def parts_of(names: set[str]) -> dict[str, str]:
    """The part of each of some folders that lie side by side; nothing where they are no parts."""
    meanings = [(rest(one), PARTS[one]) for one in names if one in PARTS]
    for group in ("", "seg"):
        if len({part for of, part in meanings if of == group}) > 1:
            return {one: PARTS[one] if one in PARTS and rest(one) == group else one for one in names}
    if len(meanings) != 1:
        return {}
    others = [one for one in names if one not in PARTS]
    if meanings[0][0] == "seg" or any(one not in BESIDE for one in others):
        return {}
    return {one: PARTS.get(one, one) for one in names}


def split(names: list[str]) -> dict[str, dict[str, str]] | None:
    """For each part, what is left of the path of each of its images; None where there are no parts."""
    if not names or not few(names):
        return None
    found: dict[str, dict[str, str]] = {}
    if parts := parts_of(folders(names)):
        for folder, part in parts.items():
            within = {f"{folder}/{name}": name for name in inside(names, folder)}
            found.setdefault(part, {}).update(unrepeated(folder, within))
        return found
    below = {folder: inside(names, folder) for folder in folders(names)}
    if len(below) > 1 and all(few(one) and parts_of(folders(one)) for one in below.values()):
        for folder, one in below.items():
            for part_folder, part in parts_of(folders(one)).items():
                within = {f"{folder}/{part_folder}/{name}": name for name in inside(one, part_folder)}
                kept = unrepeated(part_folder, within)
                found.setdefault(part, {}).update({full: f"{folder}/{name}" for full, name in kept.items()})
        # what one class calls a part of its own name, another class may call a part by its meaning
        return found
    if len(below) == 1:
        [folder] = below
        deeper = split(inside(names, folder))
        return deeper and {
            part: {f"{folder}/{full}": name for full, name in one.items()} for part, one in deeper.items()
        }
    return None


def unrepeated(folder: str, names: dict[str, str]) -> dict[str, str]:
    """A folder alone within a part, and called as that is, is passed."""
    left = list(names.values())
    if not left or not few(left) or len(folders(left)) != 1:
        return names
    [inner] = folders(left)
    if inner != folder and not (
        PARTS.get(inner) == PARTS.get(folder) is not None and rest(inner) == rest(folder)
    ):
        return names
    return unrepeated(
        folder, {full: name[len(inner) + 1 :] for full, name in names.items() if name.startswith(f"{inner}/")}
    )


def classes_of(parts: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """The class of each image of each part; None where there are no classes."""
    parts = [dict(part) for part in parts]
    while True:
        some = [part for part in parts if any("/" in name for name in part.values())]
        if not some or not all(few(list(part.values())) for part in some):
            return None
        if len(names := set().union(*(folders(list(part.values())) for part in some))) > 1:
            break
        [wrapper] = names
        for index, part in enumerate(parts):
            if part in some:
                parts[index] = {
                    full: name[len(wrapper) + 1 :]
                    for full, name in part.items()
                    if name.startswith(f"{wrapper}/")
                }
            else:
                parts[index] = {}
    for index, part in enumerate(parts):
        if part not in some:
            parts[index] = {}
    own = {name.rpartition("/")[0] for part in parts for name in part.values() if "/" in name}

    def whole(folder: str) -> str:
        steps = folder.split("/")
        return next("/".join(steps[: i + 1]) for i in range(len(steps)) if "/".join(steps[: i + 1]) in own)

    classes = {folder: whole(folder) for folder in own}
    while (
        all("/" in name for name in classes.values()) and len({end(name) for name in classes.values()}) == 1
    ):
        classes = {folder: name.rpartition("/")[0] for folder, name in classes.items()}
    return [
        {full: classes[name.rpartition("/")[0]] for full, name in part.items() if "/" in name}
        for part in parts
    ]


def end(path: str) -> str:
    return path.rpartition("/")[2]


def rules(names: list[str]) -> tuple[dict, dict | None]:
    parts = split(names)
    if parts is None:
        classes = classes_of([unwrapped(names)])
        return (dict.fromkeys(names) if classes is None else classes[0]), None
    if "train" not in parts and len(parts) > 1:
        raise RefusedError
    trained = "train" if "train" in parts else next(iter(parts))
    validated = next((one for one in ("validation", "test") if one in parts and one != trained), None)
    if validated is not None:
        both = classes_of([parts[trained], parts[validated]])
        if both is None or not both[0]:
            return dict.fromkeys(parts[trained]), dict.fromkeys(parts[validated])
        has, also = set(both[0].values()), set(both[1].values())
        if also and also <= has:
            return both[0], both[1]
        if also and not (len(also) == 1 < len(has) and not also & has):
            raise RefusedError
    alone = classes_of([parts[trained]])
    return (dict.fromkeys(parts[trained]) if alone is None else alone[0]), None


def unwrapped(names: list[str]) -> dict[str, str]:
    """What is left of each path below the folders that only wrap all others."""
    found = {name: name for name in names}
    while few(list(found.values())) and len(inner := folders(list(found.values()))) == 1:
        [wrapper] = inner
        found = {
            full: name[len(wrapper) + 1 :] for full, name in found.items() if name.startswith(f"{wrapper}/")
        }
    return found


PATHS = st.lists(st.sampled_from(NAMES), max_size=4).map("/".join)


@st.composite
def sets(draw: st.DrawFn) -> list[str]:
    """Names of images in folders that may mean something, a few or many in each."""
    counts: Counter[str] = Counter()
    for folder in draw(st.lists(PATHS, min_size=1, max_size=6, unique=True)):
        counts[folder] += draw(st.sampled_from([1, 1, 2, 3, 15]))
    return [f"{folder}/{i}.png".lstrip("/") for folder, count in counts.items() for i in range(count)]


def check_any_tree(names: list[str]):
    try:
        expected = rules(names)
    except RefusedError:
        expected = None
    try:
        found = meant(names)
    except ValueError:
        found = None
    assert found == expected


test_any_tree, test_any_tree_of_many = short_and_long(check_any_tree, sets(), everyday=300, long=1500)


CLASSES = ["cat", "dog", "0", "1", "10", "a b", "猫", "n01440764", "animals/fox", "animals/owl"]
STYLES = [
    ("train", "val", "test"),
    ("Training", "Validation", "Testing"),
    ("seg_train", "seg_val", "seg_test"),
    ("train2017", "val2017", "test2017"),
    ("TRAIN", "VALID", "TEST"),
    ("training_set", "dev_set", "test_set"),
]
CLUTTER = ["Thumbs.db", "x/desktop.ini", "__MACOSX/train/cat/a.png", "README.md", "notes/list.csv"]


@st.composite
def sensible(draw: st.DrawFn) -> tuple[list[str], list[dict | None]]:
    """A set as people lay it out, and the classes of its images."""
    wrappers = draw(st.lists(st.sampled_from(["data", "My Photos", "v1.0"]), max_size=3))
    inner = draw(st.lists(st.sampled_from(["images", "pics"]), max_size=1))
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, unique=True))
    if all("/" in name for name in classes):
        classes.append("cat")
    style = draw(st.sampled_from(STYLES))
    parts = (
        [style[i] for i in sorted(draw(st.sets(st.sampled_from([1, 2]))) | {0})]
        if draw(st.booleans())
        else [""]
    )
    expected: list[dict | None] = []
    for part in parts:
        above = [*wrappers, *([part] if part else []), *inner]
        of_part = {}
        for name in classes:
            for i in range(draw(st.integers(1, 4))):
                of_part["/".join([*above, name, f"{i}.{draw(st.sampled_from(['png', 'JPG', 'webp']))}"])] = (
                    name
                )
        expected.append(of_part)
    names = [name for part in expected for name in part]
    if draw(st.booleans()):
        names.append("/".join([*wrappers, "cover.png"]))
    names += draw(st.lists(st.sampled_from(CLUTTER), unique=True))
    return draw(st.permutations(names)), [expected[0], expected[1] if len(expected) > 1 else None]


def check_a_set_as_people_lay_it_out(case: tuple[list[str], list[dict | None]]):
    names, expected = case
    assert list(meant(names)) == expected


test_a_set_as_people_lay_it_out, test_many_sets_as_people_lay_them_out = short_and_long(
    check_a_set_as_people_lay_it_out, sensible(), everyday=100, long=500
)
