"""MLflow gets what it was given, where it is installed."""

import csv
from pathlib import Path

import pytest
from conftest import only_run, run_program

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_values_pictures_and_the_configuration_are_read_back(tmp_path: Path):
    mlflow = pytest.importorskip("mlflow")
    outcome = run_program("train.py", "experiment=smoke", "logger=mlflow", "seed=3", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'ddpm'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "3"
    with (only_run(tmp_path) / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "val/loss", "train/learning_rate"):
        found = {value.step: value.value for value in client.get_metric_history(run.info.run_id, name)}
        assert found == pytest.approx({int(row["step"]): float(row[name]) for row in rows if row[name]})
    pictures = [artifact.path for artifact in client.list_artifacts(run.info.run_id, "images")]
    for step in (10, 20):
        assert any("samples.grid" in path and f"step+{step}+" in path.replace("%", "+") for path in pictures)
