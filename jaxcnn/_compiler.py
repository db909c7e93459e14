"""Options of XLA's compiler, of which not every version has each."""

from functools import cache
from typing import Any

import jax


def known(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options, by name, that this version of XLA knows: for `jax.jit`."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


@cache
def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except RuntimeError:  # "No such compile option"
        return False
    return True
