import signal

import jax
import pytest

# Most of the tests' time is compilation of what runs once. The scripts' tests, in processes of
# their own, compile as a user does.
jax.config.update("jax_disable_most_optimizations", True)

# A shell starts what is to run in the background with this signal ignored; so would the scripts be
# that tests interrupt, and they would run for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def float64():
    """Correctness is judged in float64, where rounding is far below the error of any wrong rule."""
    with jax.enable_x64(True):
        yield
