"""Manual against autodiff: is a gradient right, and what does it cost?

    compare_gradients    one function: values, gradients, contract, edges, cost    (gradients.py)
    audit                each rule that a function calls, on the data there        (rules.py)
    drop_custom_vjp      a function without its rules, for autodiff                (jaxprs.py)

`problem.py` folds a function's arguments away and compiles it twice, in its dtypes and in float64;
`agreement.py` says how far two results may be apart, and `point.py` judges those at one point, with
`judge.py` for kinks, `diagnosis.py` and `as_if.py` for the words. `contract.py`, `edges.py`,
`differences.py` and `cost.py` are the other checks; `report.py` prints.
"""

from jaxcnn.compare.gradients import compare_gradients
from jaxcnn.compare.jaxprs import drop_custom_vjp
from jaxcnn.compare.report import Report, Row
from jaxcnn.compare.rules import audit

__all__ = ["Report", "Row", "audit", "compare_gradients", "drop_custom_vjp"]
