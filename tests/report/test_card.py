"""The model card of an exported run: true to what is known, and text whatever the texts in it are."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from ddpm.data.skipped import printable
from ddpm.report.card import Model, Value, card, without_path

CONFIG: dict[str, Any] = {
    "schedule": {"_target_": "ddpm.diffusion.schedules.cosine", "num_timesteps": 50, "s": 0.008},
    "objective": {"_target_": "ddpm.diffusion.objectives.Epsilon"},
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 2e-4, "weight_decay": None},
    "ema": {"_target_": "ddpm.training.ema.EMA", "decay": 0.9999},
    "data": {
        "_target_": "ddpm.data.sources.hub.Hub",
        "name": "uoft-cs/cifar10",
        "path": None,
        "batch_size": 128,
    },
    "trainer": {"max_steps": 800},
    "seed": 3,
}
DATA = {"image_shape": [3, 32, 32], "classes": None, "num_train": 50_000, "num_validation": 10_000}
FID = Value("fid50k_train_inception_ema_ancestral50", "fid", 3.17, (3.1, 3.24), 800, "ema")

HOSTILE = [
    "猫|dog", "# heading", "'single' \"double\"", "---", "a\n---\nb", "`code`", "**bold**", "<b>html</b>",
    "x: y", "![i](http://e/p.png)", "[l](u)", "&amp;", "trailing\\", "- item", "{flow: [1", "\ttab", "null",
    "$x$", "~~s~~", "\x1b[31mred", "https://example.org", "a@example.org", "1. one", "",
    "{{ jinja }}", "%YAML", "\ud800",
]  # fmt: skip


def model(**changes: Any) -> Model:
    return Model(
        **{"name": "mine", "step": 800, "config": CONFIG, "data": DATA, "num_timesteps": 50, **changes}
    )


def read(content: str, place: Path) -> tuple[dict[str, Any], list[list[str]]]:
    """What a hub reads of a card: its front matter, and the cells of its tables as a reader sees them."""
    (place / "README.md").write_text(content, encoding="utf-8")
    front = ModelCard.load(place / "README.md").data.to_dict()
    body = content.split("\n---\n", 1)[1]
    rows: list[list[str]] = []
    before = ""
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body):
        if token.type == "tr_open":
            rows.append([])
        elif before in ("th_open", "td_open"):
            children = token.children or []
            kinds = {child.type for child in children}
            assert kinds <= {"text", "text_special"}, f"{token.content}: means {kinds}"
            rows[-1].append("".join(child.content for child in children))
        before = token.type
    return front, rows


def test_a_card_says_what_is_known(tmp_path: Path):
    record = {
        "parameters": 35_746_307,
        "devices": {"number": 4, "kind": "NVIDIA H100", "nodes": 1},
        "git": {"commit": "603f07ef", "changed": True},
        "precision": "bf16-mixed",
        "wall_seconds": 7200.0,
        "versions": {"ddpm": "0.2.0"},
    }
    front, rows = read(card(model(record=record, values=[FID])), tmp_path)
    assert front["library_name"] == "diffusers"
    assert front["pipeline_tag"] == "unconditional-image-generation"
    assert front["datasets"] == ["uoft-cs/cifar10"]
    assert "license" not in front
    pairs = {row[0]: row[1] for row in rows if len(row) == 2}
    assert pairs["images"] == "50,000 to train on, 10,000 held out"
    assert pairs["size"] == "32 x 32 pixels, 3 channels"
    assert pairs["steps"] == "800"
    assert pairs["batch"] == "128 images, of all devices together"
    assert pairs["optimizer"] == "Adam(lr=0.0002)"
    assert pairs["schedule"] == "cosine(num_timesteps=50, s=0.008)"
    assert pairs["average of the weights"] == "EMA(decay=0.9999)"
    assert pairs["devices"] == "4 x NVIDIA H100"
    assert pairs["commit"] == "603f07ef, with changes"
    assert pairs["network"] == "35,746,307 parameters"
    assert [FID.name, "3.17", "3.1 to 3.24", "Fréchet Inception distance", "step 800"] in rows
    assert "classes" not in pairs
    assert "## Limits" not in card(model(record=record))


def test_values_of_other_weights_are_told_and_not_indexed(tmp_path: Path):
    """A hub compares models by the index; what was measured of them at another step is none of theirs."""
    values = [
        FID,
        Value("fid50k_train_inception_raw_ancestral50", "fid", 9.0, None, 800, "raw"),
        Value("kid50k_train_inception_ema_ancestral50", "kid", 0.5, None, 400, "ema"),
        Value("val/loss", "", 0.03, None, 800),
    ]
    content = card(model(values=values))
    front, rows = read(content, tmp_path)
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_name) == ("fid", 3.17, FID.name)
    assert (result.dataset_type, result.dataset_name) == ("uoft-cs/cifar10", "uoft-cs/cifar10")
    assert front["metrics"] == ["fid"]
    of = {row[0]: row[4] for row in rows if len(row) == 5}
    assert of["fid50k_train_inception_raw_ancestral50"] == "step 800, without averaging the weights"
    assert of["kid50k_train_inception_ema_ancestral50"] == "step 400"
    assert of["val/loss"] == "step 800"


def test_without_values_there_is_no_index_and_no_section(tmp_path: Path):
    content = card(model())
    front, _ = read(content, tmp_path)
    assert "model-index" not in front
    assert "metrics" not in front
    assert "## Measurements" not in content
    assert "![" not in content


@pytest.mark.parametrize("name", HOSTILE)
def test_texts_from_data_stay_texts(name: str, tmp_path: Path):
    data = {**DATA, "classes": ["before", name, "after"]}
    folder = {"_target_": "ddpm.data.sources.folder.Folder", "path": f"/home/me/secret/{name or 'x'}"}
    config = {**CONFIG, "data": folder, "conditional": True}
    content = card(model(name=name or "x", data=data, config=config, values=[FID]))
    front, rows = read(content, tmp_path)
    pairs = {row[0]: row[1] for row in rows if len(row) == 2}
    assert pairs["classes"] == f"3: before, {' '.join(printable(name).split())}, after"
    assert "secret" not in content, "no path is told whole"
    assert "datasets" not in front
    assert len(front["model-index"][0]["results"][0]["metrics"]) == 1
    assert (
        content.count("\n## Data\n") == content.count("\n## Training\n") == content.count("\n## Use\n") == 1
    )


def test_front_matter_is_yaml_that_leaves_the_licence_to_a_person():
    front = card(model(name="über 模型")).split("---\n")[1]
    assert "# license:" in front
    assert "license" not in yaml.safe_load(front)


def test_an_imported_run_claims_no_training(tmp_path: Path):
    """Its configuration is what it could go on with, not what it was trained by."""
    _, rows = read(card(model(step=0)), tmp_path)
    headings = {row[0] for row in rows}
    assert {"schedule", "objective"} <= headings
    assert not headings & {"optimizer", "average of the weights", "batch", "seed"}


def test_limits_are_told_where_there_are_some():
    config = {
        **CONFIG,
        "conditional": True,
        "guidance": {"_target_": "ddpm.diffusion.guidance.ClassifierFree", "scale": 1.5},
    }
    limits = card(model(step=700, config=config, data={**DATA, "classes": ["a"]})).split("## Limits")[1]
    assert "700 of 800 steps" in limits
    assert "cannot choose a class" in limits
    assert "ClassifierFree(scale=1.5)" in limits


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("/home/somebody/faces", "faces"),
        ("~/faces/", "faces"),
        ("C:\\Users\\somebody\\faces.zip", "faces.zip"),
        ("huggan/flowers", "huggan/flowers"),
        (0.5, 0.5),
    ],
)
def test_where_somebody_keeps_files_is_not_told(value: Any, told: Any):
    assert without_path(value) == told
