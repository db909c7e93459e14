"""Programs read and written anew, equation by equation: all that needs JAX's jaxprs is here.

A jaxpr is a list of equations, `outputs = primitive[params] inputs`, and some have programs of
their own among their params: a loop's body, a branch, a jitted function. `evaluate` runs one with
a function in place of each equation's meaning. Three such meanings make three things:

    drop_custom_vjp    custom rules are replaced by the function that they are a rule of
    widened            every narrower float is a float64
    watch              each call of a rule reports its operands, and takes a probe to differentiate

What is not public in JAX is kept to `jax.extend.core` and to what an equation holds.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

Meaning = Callable[[Any, list[Any]], list[Any]]  # of an equation and its inputs: its outputs
RULE = "custom_vjp_call"
UNREACHED = {"while", "shard_map"}  # whose calls of rules can't be told a cotangent
PACKAGE = str(Path(__file__).parents[1])

# Whose result depends on the bits of a float, or that call something outside of JAX.
NARROW = {
    "bitcast_convert_type",
    "reduce_precision",
    "nextafter",
    "pure_callback",
    "io_callback",
    "debug_callback",
    "ffi_call",
}


def drop_custom_vjp(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` without its `jax.custom_vjp` rules: what JAX differentiates is the function itself.

    Rules inside `jit`, `scan`, `cond`, `while_loop`, `checkpoint` and other rules are dropped as
    well. `custom_jvp` rules stay: `jax.nn` and others need theirs (without it the derivative of
    `softplus` at 0 is 0). Where the rule is one of jaxcnn's, its function is as all platforms but
    the CPU evaluate it, by XLA's own convolutions, as in `jaxcnn.reference`.

    This is also the way to `jax.jvp` and `jax.jacfwd` of a function with such rules.

    Args:
        f: a function of any trees of arrays, which can be traced.

    Returns:
        A function of the same arguments. It traces `f` at each call: jit it if it is called often.
        A `jax.grad` *inside* `f` has used the rules already when `f` is traced, and still does.

    >>> import jaxcnn
    >>> jax.jvp(drop_custom_vjp(jaxcnn.relu), (2.0,), (1.0,))
    (Array(2., dtype=float32), Array(1., dtype=float32))
    """

    def dropped(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = [place for place, leaf in enumerate(leaves) if _is_array(leaf)]

        def flat(*values: Any) -> Any:
            filled = list(leaves)
            for place, value in zip(arrays, values, strict=True):
                filled[place] = value
            args, kwargs = jax.tree.unflatten(tree, filled)
            return f(*args, **kwargs)

        values = [leaves[place] for place in arrays]
        program, shapes = jax.make_jaxpr(flat, return_shape=True)(*values)
        results = evaluate(program, values, _without_rules)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return dropped


def widened(program: Any) -> Callable[..., list[Any]]:
    """The same program, as a function, with each float of fewer than 64 bits a float64.

    Call it, and jit it, under `jax.enable_x64(True)`.

    >>> third = jax.make_jaxpr(lambda x: jnp.float32(1) / x)(3.0)
    >>> with jax.enable_x64(True):
    ...     float(widened(third)(3.0)[0])
    0.3333333333333333
    """
    return lambda *values: evaluate(program, [_widen(value) for value in values], _wide)


def equations(program: Any) -> Iterator[Any]:
    """All equations, those of inner programs behind the one that holds them."""
    for equation in _open(program).eqns:
        yield equation
        for inner in _programs(equation):
            yield from equations(inner)


def calls_outside_jit(f: Callable[..., Any], *args: Any) -> int:
    """How many calls of rules in `f` are in no `jit`."""

    def count(program: Any) -> int:
        return sum(
            equation.primitive.name == RULE or sum(map(count, _programs(equation)))
            for equation in _open(program).eqns
            if equation.primitive.name not in ("jit", "pjit", "scan", "while", "cond")
        )

    return count(jax.make_jaxpr(f)(*args))


# The calls of rules ------------------------------------------------------------------------------


class Call(NamedTuple):
    """A place where a program calls a rule.

    Attributes:
        equation: the call.
        name: the function whose rule it is.
        stack: the name scopes around it, `ResNet/Block_2/Conv_0`, or nothing.
        line: `file.py:12`, whence it is called.
        repeats: the lengths of the scans around it, the outermost first.
    """

    equation: Any
    name: str
    stack: str
    line: str
    repeats: tuple[int, ...]


def calls(program: Any) -> list[Call]:
    """The calls of rules, in order; those in a `while_loop` or `shard_map` are out of reach."""
    return list(_calls(program, (), "", ""))


def _calls(program: Any, repeats: tuple[int, ...], stack: str, line: str) -> Iterator[Call]:
    for equation in _open(program).eqns:
        name = equation.primitive.name
        inside = "/".join(filter(None, (stack, _scopes(equation))))
        called = _line(equation) or line
        if name == RULE:
            rule = _source(equation.params["call_jaxpr"]).split(" at ")[0]
            yield Call(equation, rule, inside, called, repeats)
        elif name not in UNREACHED:
            steps = (equation.params["length"],) if name == "scan" else ()
            for inner in _programs(equation):
                yield from _calls(inner, (*repeats, *steps), inside, called)


def probes(program: Any) -> list[list[Any]]:
    """Zeros for each call: as many as it has floating outputs, of their shapes."""
    return [
        [
            jnp.zeros((*call.repeats, *var.aval.shape), var.aval.dtype)
            for var in call.equation.outvars
            if jnp.issubdtype(var.aval.dtype, jnp.floating)
        ]
        for call in calls(program)
    ]


def watch(
    program: Any, values: Sequence[Any], probes: list[list[Any]]
) -> tuple[list[Any], list[list[Any]]]:
    """The results, and the operands of each call of a rule. Each probe is added to an output.

    So the derivative by a probe is the cotangent that reaches the call. Rules are dropped: what is
    differentiated is the functions themselves. What is called in a scan has all the steps'
    operands stacked, and in a branch that is not taken it has zeros.
    """
    waiting = iter(probes)
    records: list[list[Any]] = []

    def meaning(equation: Any, values: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if name == RULE:
            records.append(values)
            added = iter(next(waiting))
            return [
                y + next(added) if jnp.issubdtype(y.dtype, jnp.floating) else y
                for y in _without_rules(equation, values)
            ]
        if name in UNREACHED or not _holds(equation, {RULE}):
            return _without_rules(equation, values)
        if name == "scan":
            inner = [next(waiting) for _ in calls(equation.params["jaxpr"])]
            results, found = _watch_scan(equation, values, inner)
        elif name == "cond":
            branches = equation.params["branches"]
            apart = [[next(waiting) for _ in calls(branch)] for branch in branches]
            results, found = _watch_cond(branches, values, apart)
        else:  # a function of its own: jit, checkpoint
            (program,) = _programs(equation)
            inner = [next(waiting) for _ in calls(program)]
            results, found = watch(program, values, inner)
        records.extend(found)
        return results

    return evaluate(program, values, meaning), records


def _watch_scan(equation: Any, values: list[Any], probes: list[list[Any]]) -> tuple[list, list]:
    params = equation.params
    if "num_consts" in params:
        consts, carried = params["num_consts"], params["num_carry"]
    else:  # JAX 0.11
        consts, carried = (len(part) for part in params["ft_in"].unpack()[:2])
    fixed, first = values[:consts], values[consts : consts + carried]

    def body(carry: list[Any], xs: Any) -> tuple[list[Any], Any]:
        results, records = watch(params["jaxpr"], [*fixed, *carry, *xs[0]], xs[1])
        return results[:carried], (results[carried:], records)

    xs = (values[consts + carried :], probes)
    last, (stacked, records) = lax.scan(
        body, first, xs, length=params["length"], reverse=params["reverse"]
    )
    return [*last, *stacked], records


def _watch_cond(
    branches: Any, values: list[Any], probes: list[list[list[Any]]]
) -> tuple[list, list]:
    """Of the branches that are not taken, the records are zeros."""
    shapes = [
        jax.eval_shape(partial(watch, branch), values[1:], own)[1]
        for branch, own in zip(branches, probes, strict=True)
    ]

    def run(number: int, operands: list[Any], probes: list[list[list[Any]]]) -> tuple[list, list]:
        results, records = watch(branches[number], operands, probes[number])
        every = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        every[number] = records
        return results, [record for branch in every for record in branch]

    runs = [partial(run, number) for number in range(len(branches))]
    return lax.switch(values[0], runs, values[1:], probes)


def call_again(call: Call) -> Callable[..., list[Any]]:
    """The call as a function of its operands, with its rule."""
    return lambda *operands: bind(call.equation, operands)


def called_function(call: Call) -> Callable[..., list[Any]]:
    """The call as a function of its operands, without its rule."""
    return lambda *operands: _without_rules(call.equation, list(operands))


def operand_names(call: Call) -> list[str]:
    """Those of the function's first parameters, if its source can be read."""
    closed_over = call.equation.params["num_consts"]
    count = len(call.equation.invars) - closed_over
    parameters = _parameters(*_source(call.equation.params["call_jaxpr"]).split(" at "))
    known = (
        parameters[:count] if len(parameters) >= count else [f"operand {i}" for i in range(count)]
    )
    return [*(f"constant {i}" for i in range(closed_over)), *known]


def _parameters(_: str, place: str = "") -> list[str]:
    """Of the function that starts there, `file:line`."""
    file, _, line = place.rpartition(":")
    try:
        tree = ast.parse(Path(file).read_text())
    except (OSError, SyntaxError, ValueError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            decorators = getattr(node, "decorator_list", [])
            if str(min([node.lineno, *(d.lineno for d in decorators)])) == line:
                return [argument.arg for argument in node.args.posonlyargs + node.args.args]
    return []


def _scopes(equation: Any) -> str:
    """The name scopes around it: `Conv_0`, if its name stack is `vmap(Conv_0)`."""
    stack = str(equation.source_info.name_stack)
    while (shorter := re.sub(r"\w+\(([^()]*)\)", r"\1", stack)) != stack:
        stack = shorter
    return stack.strip("/")


def _source(program: Any) -> str:
    """`name at file:line` of the function that a program was traced from."""
    return _open(program).debug_info.func_src_info or ""


def _line(equation: Any) -> str:
    """The innermost line that is neither JAX's nor one of this package's layers."""
    traceback = equation.source_info.traceback
    hidden = (str(Path(jax.__file__).parent), f"{PACKAGE}/_", f"{PACKAGE}/compare/")
    for frame in traceback.frames if traceback else []:
        layer = str(Path(frame.file_name).parent) == PACKAGE
        if not layer and not frame.file_name.startswith(hidden):
            return f"{Path(frame.file_name).name}:{frame.line_num}"
    return ""


# Running a program -------------------------------------------------------------------------------


def evaluate(program: Any, values: Sequence[Any], meaning: Meaning) -> list[Any]:
    """The results of a program for these values, where `meaning` says what an equation does."""
    jaxpr = _open(program)
    known = dict(zip(jaxpr.constvars, getattr(program, "consts", []), strict=True))
    known |= dict(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        results = meaning(equation, [read(atom) for atom in equation.invars])
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(equation: Any, values: Sequence[Any], params: dict[str, Any] | None = None) -> list[Any]:
    """The equation as it is, or with other params."""
    arguments = equation.primitive.get_bind_params(params or equation.params)
    results = equation.primitive.bind(*values, **arguments)
    return list(results) if equation.primitive.multiple_results else [results]


def inner_programs_replaced(equation: Any, meaning: Meaning, cast: Callable[[Any], Any]) -> dict:
    """The equation's params, where each inner program has its equations' meaning replaced.

    `cast` says of which type an input is that was of another.
    """

    def replaced(param: Any) -> Any:
        if isinstance(param, core.Jaxpr | core.ClosedJaxpr):
            jaxpr = _open(param)
            inputs = [cast(var.aval) for var in jaxpr.invars]
            found = jax.make_jaxpr(lambda *values: evaluate(param, values, meaning))(*inputs)
            return found if hasattr(param, "consts") else _open(found)
        if isinstance(param, tuple | list):
            parts = [replaced(part) for part in param]
            return type(param)(*parts) if hasattr(param, "_fields") else type(param)(parts)
        return param

    return {name: replaced(param) for name, param in equation.params.items()}


def _open(program: Any) -> Any:
    return getattr(program, "jaxpr", program)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex)


# The meanings ------------------------------------------------------------------------------------


def _without_rules(equation: Any, values: list[Any], by_default: bool = False) -> list[Any]:
    name = equation.primitive.name
    if name == RULE:
        program = equation.params["call_jaxpr"]
        own = _is_own(program)
        return evaluate(program, values, partial(_without_rules, by_default=own))
    meaning = partial(_without_rules, by_default=by_default)
    if name in ("jit", "pjit"):
        return evaluate(equation.params["jaxpr"], values, meaning)
    if by_default and name == "platform_index":
        return [len(equation.params["platforms"]) - 1]  # where the default comes
    if by_default and name == "cond" and isinstance(values[0], int):
        return evaluate(equation.params["branches"][values[0]], values[1:], meaning)
    if not _holds(equation, {RULE, "platform_index"} if by_default else {RULE}):
        return bind(equation, values)
    return bind(equation, values, inner_programs_replaced(equation, meaning, lambda aval: aval))


def _wide(equation: Any, values: list[Any]) -> list[Any]:
    name = equation.primitive.name
    if name in ("jit", "pjit"):
        return evaluate(equation.params["jaxpr"], list(map(_widen, values)), _wide)
    if name in (RULE, "custom_jvp_call"):
        return evaluate(equation.params["call_jaxpr"], list(map(_widen, values)), _wide)
    if name in NARROW:
        narrow = [
            _as(value, atom.aval) for value, atom in zip(values, equation.invars, strict=True)
        ]
        return [_widen(result) for result in bind(equation, narrow)]
    params = inner_programs_replaced(equation, _wide, _wide_type)
    return bind(equation, list(map(_widen, values)), {k: _wide_dtype(v) for k, v in params.items()})


def _programs(equation: Any) -> list[Any]:
    """The programs among an equation's params, with their constants."""
    parts = [p for p in equation.params.values() for p in (p if isinstance(p, tuple) else (p,))]
    return [part for part in parts if isinstance(part, core.Jaxpr | core.ClosedJaxpr)]


def _holds(equation: Any, names: set[str]) -> bool:
    inner = _programs(equation)
    return any(part.primitive.name in names for program in inner for part in equations(program))


def _is_own(program: Any) -> bool:
    """Whether a rule's function is one of this package."""
    return f" at {PACKAGE}" in _source(program)


def _is_narrow(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 8


def _widen(value: Any) -> Any:
    dtype = getattr(value, "dtype", None)
    narrow = isinstance(value, float) if dtype is None else _is_narrow(dtype)
    return jnp.asarray(value, jnp.float64) if narrow else value


def _as(value: Any, aval: Any) -> Any:
    dtype = getattr(aval, "dtype", None)
    return value.astype(dtype) if dtype is not None and value.dtype != dtype else value


def _wide_type(aval: Any) -> Any:
    return jax.ShapeDtypeStruct(aval.shape, jnp.float64) if _is_narrow(aval.dtype) else aval


def _wide_dtype(param: Any) -> Any:
    return np.dtype(np.float64) if isinstance(param, np.dtype) and _is_narrow(param) else param
