"""Manual against autodiff: is each gradient of a model right?

`compare_model` gives a row for each input of each call that the model makes, and for each of its
parameters. `calls.py` records the calls, `rows.py` compares a function's gradients with those of
autodiff, `differences.py` with central differences, `tolerance.py` says how far apart they may be,
and `report.py` prints them.
"""

from jaxcnn.compare.model import compare_model, draw_biases
from jaxcnn.compare.rows import Row

__all__ = ["Row", "compare_model", "draw_biases"]
