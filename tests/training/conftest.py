from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Here the opposite: training is tested in the dtype that it runs in."""
    with jax.enable_x64(False):
        yield
