"""Stands for SLURM: `sbatch`, `srun`, `squeue`, `scontrol requeue` and `scancel --signal` of one machine.

Copied to these names; with `STANDS_FOR_SLURM` a directory for its jobs. As SLURM's do, a job that
is queued again keeps its number, what it runs gets SIGTERM, and its script is begun anew.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

STATE = Path(os.environ["STANDS_FOR_SLURM"])


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    if flags.get("partition") == "nowhere":
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    number = str(100 + len(list(STATE.glob("*.sh"))))
    copy = STATE / f"{number}.sh"
    copy.write_text(text)
    last = re.match(r"'?0-(\d+)", flags.get("array", ""))
    for index in range(int(last[1]) + 1) if last else [None]:
        job = number if index is None else f"{number}_{index}"
        (STATE / f"{job}.state").write_text("PENDING")
        tasks, nodes = int(flags.get("ntasks-per-node", 1)), int(flags.get("nodes", 1))
        told = {
            "SLURM_JOB_ID": str(int(number) + (index or 0)),
            "SLURM_JOB_NAME": flags.get("job-name", "script"),
            "SLURM_NTASKS": str(tasks * nodes),
            "SLURM_NTASKS_PER_NODE": str(tasks),
            "SLURM_NNODES": str(nodes),
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_NODELIST": "localhost",
            "JOB": job,
        }
        if index is not None:
            told |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(index)}
        if flags.get("partition") == "held":  # whose jobs wait until they are cancelled
            continue
        with (STATE / f"{job}.out").open("w") as out:
            subprocess.Popen(
                [sys.executable, __file__, "controller", job, str(copy)], env={**os.environ, **told},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
    print(f"Submitted batch job {number}")


def controller(job: str, script: str) -> None:
    again = STATE / f"{job}.again"
    while True:
        (STATE / f"{job}.state").write_text("RUNNING")
        subprocess.run(["bash", script])
        if not again.exists():
            break
        (STATE / f"{job}.state").write_text("PENDING")
        again.unlink()
        time.sleep(0.5)
    (STATE / f"{job}.state").unlink()


def srun(*words: str) -> None:
    rest = list(words)
    output = error = ""
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        if flag in ("--output", "--error"):
            output, error = (rest.pop(0), error) if flag == "--output" else (output, rest.pop(0))
    numbers = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        names = []
        for name in output, error:
            for mark, variable in numbers.items():
                name = name.replace(mark, os.environ.get(variable, ""))
            names.append(name.replace("%t", str(rank)))
        node, local = divmod(rank, int(os.environ["SLURM_NTASKS_PER_NODE"]))
        place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(node)}
        with open(names[0], "a") as out, open(names[1], "a") as err:
            tasks.append(
                subprocess.Popen(
                    rest, env={**os.environ, **place, "SLURM_STEP_ID": "0"}, stdout=out, stderr=err
                )
            )
    (STATE / f"{os.environ['JOB']}.tasks").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(task.wait() for task in tasks))


def signal_to(job: str, signum: int) -> None:
    for pid in (STATE / f"{job}.tasks").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signum)


def scontrol(action: str, job: str) -> None:
    assert action == "requeue"
    with (STATE / "asked").open("a") as file:
        file.write(f"{shlex.join(['scontrol', action, job])}\n")
    (STATE / f"{job}.again").touch()
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(0.5)
        signal_to(job, signal.SIGTERM)


def squeue(*_: str) -> None:
    for file in sorted(STATE.glob("*.state")):
        print(file.stem, file.read_text())


def scancel(*words: str) -> None:
    job = words[-1]
    if len(words) == 1:  # of one that waits
        (STATE / f"{job}.state").unlink()
    else:
        signal_to(job, getattr(signal, f"SIG{words[0].removeprefix('--signal=')}"))


if __name__ == "__main__":
    name, *given = Path(sys.argv[0]).name, *sys.argv[1:]
    if given[0] == "controller":
        name, *given = given
    {"sbatch": sbatch, "srun": srun, "squeue": squeue, "scontrol": scontrol, "scancel": scancel,
     "controller": controller}[name](*given)  # fmt: skip
