"""What pages show whole, written out and run: a package, scripts, notebooks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, files_on, module_of_site, run_program
from nbclient import NotebookClient
from PIL import Image

WORDS = ["--config-dir", "my_conf", "allow_targets=[mylab]"]


DOCS = ROOT / "docs"


def written_out(page: Path, place: Path) -> Path:
    """Write the files that a page shows into a folder."""
    for path, text in files_on(page).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def mylab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mylab/` and `my_conf/`."""
    return written_out(DOCS / "extending.md", tmp_path_factory.mktemp("mylab"))


def program(script: str, *words: str, cwd: Path) -> str:
    path = os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")])
    outcome = run_program(script, *words, cwd=cwd, env={"PYTHONPATH": path})
    assert outcome.returncode == 0, outcome.said
    return outcome.stdout


@pytest.mark.e2e
@pytest.mark.slow
def test_options_of_a_package_of_ones_own_train_draw_and_measure(mylab: Path):
    chosen = [
        "experiment=smoke", "trainer.devices=1", "schedule=power", "schedule.num_timesteps=50",
        "sampler=quiet_end", "sampler.num_steps=5", "sampler.below=20", "model=convnet", "data=stripes",
        "optimizer=decoupled", "lr_schedule=exponential", "logger=[wandb,json_lines]",
        "callbacks=[default,mean_image]", "hydra.run.dir=run",
    ]  # fmt: skip
    program("train.py", *WORDS, *chosen, cwd=mylab)
    rows = [json.loads(line) for line in (mylab / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "mylab/brightness" in row] == [10, 20]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 21))
    rates = {row["step"]: row["train/learning_rate"] for row in rows if "train/loss" in row}
    assert rates[20] == pytest.approx(2e-3 * 0.999**19)  # the experiment's rate
    pictures = (mylab / "run").glob("wandb/offline-run-*/files/media/images/mylab/mean_*.png")
    assert sorted(int(path.name.split("_")[1]) for path in pictures) == [10, 20]

    program("sample.py", "ckpt=run", "allow_targets=[mylab]", "n=4", "out=drawn", cwd=mylab)
    assert (mylab / "drawn" / "grid.png").exists()
    measured = [
        "ckpt=run",
        "metrics=[denoising_error]",
        "metrics.denoising_error.t=40",
        "hydra.run.dir=measured",
    ]
    program("evaluate.py", *WORDS, *measured, cwd=mylab)
    found = json.loads((mylab / "measured" / "metrics.json").read_text())["denoising_error"]
    assert 0 < found["rmse"] < 2
    assert found["images"] == 64

    by_colours = ["ckpt=run", "metrics=[mean_distance]", "extractor=colours", "n=8", "hydra.run.dir=compared"]
    program("evaluate.py", *WORDS, *by_colours, cwd=mylab)
    found = json.loads((mylab / "compared" / "metrics.json").read_text())["mean_distance"]
    assert found["mean_distance8_train_colours_ema_QuietEnd5"] > 0


@pytest.mark.e2e
@pytest.mark.long
def test_the_doctor_passes_the_mathematics_of_ones_own(mylab: Path):
    command = [sys.executable, "-m", "ddpm", "doctor", "--config-dir", "my_conf", "--allow-targets", "mylab"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(mylab), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.run(command, cwd=mylab, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout
    assert "sampler=quiet_end" in process.stdout
    assert "schedule=power" in process.stdout


@pytest.mark.slow
@pytest.mark.e2e
def test_a_lightning_script_of_ones_own_trains_loads_and_predicts(tmp_path: Path):
    written_out(DOCS / "lightning.md", tmp_path)
    script = tmp_path / "digits.py"
    text, short = script.read_text(), 'max_steps=4, accelerator="cpu", devices=1'
    assert text.count("max_steps=2000)\n") == 1
    script.write_text(text.replace("max_steps=2000", short) + "assert drawn.shape == (16, 1, 8, 8)\n")
    command = [sys.executable, "digits_again.py"]  # imports the other, and so runs it
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "digits.ckpt").exists()


@pytest.mark.slow
@pytest.mark.e2e
def test_a_script_looks_at_a_run(smoke_run: Path, tmp_path: Path):
    written_out(DOCS / "lightning.md", tmp_path)
    command = [sys.executable, "look.py", str(smoke_run)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert "176,849 parameters" in process.stdout
    for name in ("grid.png", "path.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size[0] > 8


def as_notebook(page: str) -> nbformat.NotebookNode:
    """A page of docs/notebooks/, as its reader turns it into a notebook."""
    made = nbformat.from_dict(module_of_site("notebooks").notebook(page))
    nbformat.validate(made)
    return made


def test_a_page_is_a_notebook_of_its_text_and_its_blocks():
    page = "# Title\n\ntext `code`\n\n```python\na = 1\n```\n```bash\nls\n```\n\n```python\nb = 2\n```\n"
    cells = as_notebook(page).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "markdown", "code"]
    assert [cell.source for cell in cells[1::2]] == ["a = 1", "b = 2"]
    assert cells[2].source == "```bash\nls\n```", "what is no Python is text"


SHORTER = {
    "STEPS = 3000": "STEPS = 100",
    "N = 64": "N = 8",
    "T // 4": "T // 20",
    "(5, 10, 20, 40)": "(5, 10)",
}
"""What pages take time by, and less of it: what they assert holds as well."""

SHOWN = {"first_steps": 5, "equations": 1, "samplers": 1}
"""Pictures of each page that is a notebook."""


def test_every_notebook_is_run_and_stands_on_the_site():
    pages = {page.stem for page in (DOCS / "notebooks").glob("*.md")}
    assert pages == SHOWN.keys()
    nav = (ROOT / "mkdocs.yml").read_text()
    assert all(f"      - notebooks/{name}.md\n" in nav for name in pages)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs(name: str, smoke_run: Path, tmp_path: Path):
    text = (DOCS / "notebooks" / f"{name}.md").read_text(encoding="utf-8")
    for long, short in {'"logs/train/RUN"': repr(str(smoke_run)), **SHORTER}.items():
        text = text.replace(long, short)
    assert text.count(str(smoke_run)) == (name != "equations")
    notebook = as_notebook(text)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.get("data", {}) for cell in code for output in cell.outputs]
    assert sum("image/png" in data for data in shown) == SHOWN[name]
    if name == "first_steps":
        assert "<img alt='step_00000020.png'" in next(
            data["text/html"] for data in shown if "text/html" in data
        )
        assert any("torch.Size([16, 1, 8, 8])" in data.get("text/plain", "") for data in shown)
