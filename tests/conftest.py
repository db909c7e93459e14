import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    """Correctness is judged in float64, where rounding is far below the error of any wrong rule."""
    with jax.enable_x64(True):
        yield
