"""The learning rate of a run."""

import numpy as np
import pytest

from jaxcnn.training.run import schedule


@pytest.mark.parametrize("epochs", [1, 5, 20])
def test_the_rate_rises_for_five_epochs_and_falls_to_zero(epochs: int) -> None:
    rate = schedule(0.5, 10, epochs)
    rates = np.array([rate(step) for step in range(10 * epochs + 1)])
    np.testing.assert_allclose(rates[:5], 0.01 * np.arange(1, 6), rtol=1e-5)
    top = rates.argmax()
    assert rates[top] < 0.5
    assert top < 50
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) <= 0).all()
    assert rates[-1] == 0
