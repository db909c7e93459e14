"""Rules to tell apart: each planted bug is one small function, and so is each correct rule."""

from benchmarks.rules import (
    composed,
    convolution,
    correct,
    elementwise,
    linear,
    normalization,
    pooling,
    several,
)
from benchmarks.rules.case import Case

BUGS: list[Case] = [
    *convolution.BUGS,
    *pooling.BUGS,
    *linear.BUGS,
    *normalization.BUGS,
    *elementwise.BUGS,
    *several.BUGS,
]
CORRECT: list[Case] = [*correct.CORRECT, *composed.CORRECT]
