"""Hostile checkpoints are refused in one message, in bounded time and memory, and run nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training.checkpoints import hostile

LOADS = """
import json, resource, signal, sys
from pathlib import Path
import ddpm
from ddpm.errors import UsageError

def too_long(*_):
    raise TimeoutError("3 s of computing")

ddpm.load(sys.argv[1], device="cpu")  # imports what a load imports
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 30), -1))
signal.signal(signal.SIGPROF, too_long)
said = {}
for path in sys.argv[2:]:
    signal.setitimer(signal.ITIMER_PROF, 3)
    try:
        ddpm.load(path, device="cpu")
        said[path] = "loaded"
    except UsageError as error:
        said[path] = str(error)
    except BaseException as error:
        said[path] = f"{type(error).__name__}: {error}"
    signal.setitimer(signal.ITIMER_PROF, 0)
print(json.dumps(said))
"""


@pytest.mark.e2e
def test_each_is_refused_in_one_message(tmp_path: Path):
    made = hostile.make(tmp_path / "made")
    assert len(made) >= 40
    command = [sys.executable, "-c", LOADS, str(hostile.WHOLE), *map(str, made)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    for path in made:
        message = said[str(path)]
        assert message.startswith(f"ckpt={path}"), f"{path.name}: {message}"
        assert len(message.splitlines()) == 1, message
        assert hostile.SAID.get(path.stem, "") in message
        assert len(message) < len(str(path)) + 600, message
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
