"""What the doctor's tests share."""

from collections.abc import Iterator

import pytest

from ddpm.app.doctor import found_options
from ddpm.doctor.examination import Examined, examined


@pytest.fixture(scope="session")
def everything() -> Iterator[Examined]:
    """The options of conf/ and the cover of their pairs, as `python -m ddpm doctor` examines them."""
    with found_options() as found:
        assert found.broken == {}
        yield examined(found.catalogue)
