"""Jobs at once get parts of the machine that do not overlap, or are refused."""

from typing import Any

import pytest

from ddpm.app.sweeps import shares
from ddpm.errors import UsageError


def config(devices: Any = 1, accelerator: str = "auto", **trainer: Any) -> dict[str, Any]:
    return {"trainer": {"devices": devices, "accelerator": accelerator, **trainer}}


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_cores", lambda: 8)
    for name in (*shares.THREADS, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("n_jobs", "devices", "threads"), [(2, 1, 4), (4, 1, 2), (2, 2, 2), (3, 1, 2), (16, 1, 1), (4, 4, 1)]
)
def test_the_cores_are_shared_out_among_all_processes(n_jobs: int, devices: int, threads: int):
    for place in range(n_jobs):
        found = shares.share(place, n_jobs, config(devices, "cpu"), gpus=0)
        assert found == {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in shares.share(0, 2, config(accelerator="cpu"), gpus=0)


@pytest.mark.parametrize(("n_jobs", "devices", "each"), [(4, 1, 1), (2, 2, 2), (2, "auto", 2), (2, -1, 2)])
def test_the_gpus_are_shared_out_once(n_jobs: int, devices: Any, each: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3,1")
    shares.check(n_jobs, [config(devices)], gpus=4)
    found = [
        shares.share(place, n_jobs, config(devices), gpus=4)["CUDA_VISIBLE_DEVICES"].split(",")
        for place in range(n_jobs)
    ]
    assert all(len(names) == each for names in found)
    assert sorted(name for names in found for name in names) == ["1", "3", "5", "7"]


def test_a_job_on_the_cpu_takes_no_gpu():
    assert "CUDA_VISIBLE_DEVICES" not in shares.share(0, 2, config(accelerator="cpu"), gpus=4)


@pytest.mark.parametrize(
    ("n_jobs", "job", "said"),
    [
        (0, config(), "n_jobs=0: must be at least 1"),
        (-1, config(), "n_jobs=-1: must be at least 1"),
        (5, config(), "need 5 GPUs, and there are 4; use hydra.launcher.n_jobs=4"),
        (3, config(2), "need 6 GPUs, and there are 4; use hydra.launcher.n_jobs=2"),
        (2, config(8), "need 16 GPUs, and there are 4; use fewer devices a job"),
        (5, config("auto"), "need 5 GPUs"),
        (2, config([0, 1]), "trainer.devices=.0, 1. names some"),
        (2, config("0,1"), "trainer.devices=0,1 names some"),
        (2, config(1, num_nodes=2), "leave trainer.num_nodes out"),
    ],
)
def test_what_does_not_fit_is_told(n_jobs: int, job: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=f"hydra.launcher.{said}" if said.startswith("n_jobs") else said):
        shares.check(n_jobs, [job], gpus=4)


@pytest.mark.parametrize("job", [config(8, "cpu"), config(4)])
def test_on_the_cpu_and_one_after_the_other_everything_fits(job: dict[str, Any]):
    shares.check(4 if shares.on_cpu(job) else 1, [job], gpus=4)
    shares.check(4, [job], gpus=0)
