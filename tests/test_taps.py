"""Which windows hold an element, by which tap: against a loop over (W) of `_window.py`."""

import numpy as np
import pytest

from jaxcnn._taps import merge, pad, writers
from jaxcnn._window import Window


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_writers_are_the_windows_that_hold_an_element(taps, stride, dilation):
    for size, low, high in np.ndindex(9, 6, 4):
        window = Window((size,), (taps,), (stride,), ((low - 2, high - 1),), (dilation,), (1,))
        (outputs,) = window.outputs
        if not outputs:
            continue
        wanted = [
            {(o, t) for o in range(outputs) for t in range(taps) if stride * o + dilation * t == i}
            for i in range(low - 2, low - 2 + size)
        ]

        (table,), (count,), ((before, behind),) = writers(window)
        number = np.arange(outputs).reshape(1, outputs, 1)
        padded = np.asarray(pad(number, ((before, behind),), -1)).ravel()
        found = np.empty((count, table.shape[1]), object)
        for j, r in np.ndindex(found.shape):
            held = [(padded[j + len(table) - 1 - m], tap) for m, tap in enumerate(table[:, r])]
            found[j, r] = {(o, t) for o, t in held if o >= 0 and t >= 0}

        place = np.arange(found.size).reshape(1, *found.shape, 1)
        places = np.asarray(merge(place, window)).ravel()
        assert [found.ravel()[at] for at in places] == wanted, window
