"""Random geometry: each function of jaxcnn against its twin in plain JAX, values and gradients.

    python tests/fuzz.py
    python tests/fuzz.py --convolutions 200 --pools 100 --seed 1

jaxcnn and the reference are evaluated in a process each. XLA:CPU aborts the process on some of the
input gradients that autodiff builds of a convolution; there, and where autodiff has no gradient,
loops in NumPy judge. jaxcnn has no such excuse.

A failure ends its half of the run. It is told as the smallest case that hypothesis finds, with a
command that repeats it. Exit codes: 0, none failed; 1, some did; 2, a bad argument; 130, Ctrl-C.
"""

import argparse
import importlib
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

import hypothesis
import jax
import numpy as np
import oracles
from checking import assert_close, draw
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from jax import lax
from rich.console import Console
from rich.progress import Progress

REFERENCE = "jaxcnn.reference"
SECONDS = 300  # for one case: a process that takes longer is stuck


# Random cases ------------------------------------------------------------------------------------
#
# A case is (name, shapes, keywords, ties): the function, the shapes of its arrays, its other
# arguments, and whether the numbers are so few that windows have several equal maxima.
# Drawn more often are small steps and windows, which fit somewhere.

STEPS = st.sampled_from([1, 1, 2, 2, 3])
DISTANCES = st.sampled_from([1, 1, 1, 2, 3])
PADS = st.sampled_from([0, 0, 1, 1, 2, 3, 4, -1, -2])
CHANNELS = st.integers(1, 3)
BATCH = st.sampled_from([1, 1, 2, 2, 3, 3, 0])
STRINGS = st.sampled_from(["SAME", "SAME_LOWER", "VALID"])


def convolutions():
    kinds = [conv_general_dilated_cases, conv_cases, conv_transpose_cases] * 5 + [aborting_cases]
    return st.sampled_from(kinds).flatmap(lambda kind: kind())


@st.composite
def conv_general_dilated_cases(draw):
    size, taps = draw(sizes_and_taps())
    groups, batch_groups = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)]))
    required = {
        "window_strides": each(size, STEPS),
        "padding": st.one_of(STRINGS, pairs(size)),
        "feature_group_count": st.just(groups),
        "batch_group_count": st.just(batch_groups),
    }
    optional = {"rhs_dilation": each(size, DISTANCES), "dimension_numbers": layouts(size)}
    keywords = draw(st.fixed_dictionaries(required, optional=optional))
    if not isinstance(keywords["padding"], str):  # no string says how to pad what is dilated
        keywords["lhs_dilation"] = draw(st.one_of(st.none(), each(size, STEPS)))
    inputs, outputs = draw(CHANNELS), groups * batch_groups * draw(CHANNELS)
    x, kernel = (batch_groups * draw(BATCH), *size, groups * inputs), (*taps, inputs, outputs)
    layout = keywords.get("dimension_numbers") or channels_first(size)
    return "conv_general_dilated", laid_out(x, kernel, layout), keywords, False


@st.composite
def conv_cases(draw):
    size, taps = draw(sizes_and_taps())
    groups = draw(STEPS)
    optional = {
        "strides": st.one_of(STEPS, each(size, STEPS)),
        "padding": st.one_of(STRINGS, pads(size)),
        "kernel_dilation": st.one_of(DISTANCES, each(size, DISTANCES)),
    }
    keywords = draw(
        st.fixed_dictionaries({"feature_group_count": st.just(groups)}, optional=optional)
    )
    if not isinstance(keywords.get("padding", "SAME"), str):
        keywords["input_dilation"] = draw(st.one_of(STEPS, each(size, STEPS)))
    inputs, outputs = draw(CHANNELS), groups * draw(CHANNELS)
    bias = draw(st.sampled_from([(), ((outputs,),)]))
    x, kernel = (draw(BATCH), *size, groups * inputs), (*taps, inputs, outputs)
    return "conv", (x, kernel, *bias), keywords, False


@st.composite
def aborting_cases(draw):
    """Near those on which the reference aborts: chance alone meets them once in thousands.

    Two taps move by one over what is dilated by two, without pads, along the first axis: in the
    input gradient, or in the value. XLA mistakes that for a convolution in groups. Where the window
    is larger than what it moves over, along the others, XLA swaps the two, and the mistake tells.
    """
    size, taps = draw(sizes_and_taps())
    size, taps, rest = (2 * draw(CHANNELS), *size[1:]), (2, *taps[1:]), size[1:]
    first = st.sampled_from([(2, (1, 1), 1), (2, (1, 2), 1), (1, (0, 0), 2)])
    stride, pair, dilation = draw(first)
    keywords = {
        "strides": (stride, *draw(each(rest, STEPS))),
        "padding": (pair, *draw(pairs(rest))),
        "input_dilation": (dilation, *draw(each(rest, STEPS))),
    }
    channels = draw(CHANNELS), draw(CHANNELS)
    return "conv", ((draw(BATCH), *size, channels[0]), (*taps, *channels)), keywords, False


@st.composite
def conv_transpose_cases(draw):
    size, taps = draw(sizes_and_taps())
    required = {
        "strides": each(size, STEPS),
        "padding": st.one_of(st.sampled_from(["SAME", "VALID"]), pairs(size)),
        "rhs_dilation": st.one_of(st.none(), each(size, DISTANCES)),
    }
    optional = {
        "dimension_numbers": layouts(size),
        "transpose_kernel": st.booleans(),
        "use_consistent_padding": st.booleans(),
    }
    keywords = draw(st.fixed_dictionaries(required, optional=optional))
    if keywords.get("use_consistent_padding") and not isinstance(keywords["padding"], str):
        keywords["padding"] = consistent(keywords["padding"], taps, keywords["rhs_dilation"])
    channels = [draw(CHANNELS), draw(CHANNELS)]
    x = (draw(BATCH), *size, channels[0])
    if keywords.get("transpose_kernel"):
        channels.reverse()
    layout = keywords.get("dimension_numbers") or channels_last(size)
    return "conv_transpose", laid_out(x, (*taps, *channels), layout), keywords, False


@st.composite
def pools(draw):
    name = draw(st.sampled_from(["max_pool", "min_pool", "avg_pool"]))
    size, taps = draw(sizes_and_taps())
    optional = {
        "strides": each(size, STEPS),
        "padding": st.one_of(STRINGS, pads(size)),
        "window_dilation": each(size, DISTANCES),
    }
    if name == "avg_pool":
        optional["count_include_pad"] = st.booleans()
    keywords = draw(st.fixed_dictionaries({"window_shape": st.just(taps)}, optional=optional))
    shape = (*draw(st.lists(BATCH, max_size=2)), *size, draw(CHANNELS))
    return name, (shape,), keywords, draw(st.booleans())


@st.composite
def sizes_and_taps(draw):
    """Along one to three axes. The loops are slow, and compilation is: three axes are short."""
    rank = draw(st.integers(1, 3))
    size = st.integers(1, 7 if rank < 3 else 4)
    taps = st.sampled_from([1, 2, 2, 3, 4] if rank < 3 else [1, 2, 2, 3])
    return draw(st.tuples(*[size] * rank)), draw(st.tuples(*[taps] * rank))


def each(size, values):
    """One value an axis."""
    return st.tuples(*[values] * len(size))


def pads(size):
    """An integer for all sides, or one an axis, or pairs. More than there is can't be cropped."""
    for_all = PADS.map(lambda pad: max(pad, -(min(size) // 2)))
    return st.one_of(for_all, each(size, for_all), pairs(size))


def pairs(size):
    return st.tuples(
        *(
            st.tuples(PADS, PADS).map(lambda pair, n=n: (pair[0], max(pair[1], -n - pair[0])))
            for n in size
        )
    )


def layouts(size):
    axes = [st.permutations(channels + "XYZ"[: len(size)]) for channels in ("NC", "IO", "NC")]
    return st.tuples(*(letters.map("".join) for letters in axes))


# Layouts and pads, as lax has them ---------------------------------------------------------------


def channels_first(size):
    spatial = "XYZ"[: len(size)]
    return f"NC{spatial}", f"OI{spatial}", f"NC{spatial}"


def channels_last(size, order="XYZ"):
    spatial = order[: len(size)]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"


def as_channels_last(layout):
    """That order of the axes whose spatial ones are as in the kernel: as all other arguments."""
    spatial = "".join(letter for letter in layout[1] if letter in "XYZ")
    return channels_last(spatial, spatial)


def laid_out(x, kernel, layout):
    """The shapes, given with channels last, in another layout."""
    shapes = zip((x, kernel), as_channels_last(layout), layout, strict=False)
    return tuple(
        tuple(shape[given.index(letter)] for letter in wanted) for shape, given, wanted in shapes
    )


def one_an_axis(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


def resolved(padding, size, taps, strides, dilation):
    """Pairs of pads; the strings are resolved by lax."""
    if isinstance(padding, str):
        return lax.padtype_to_pads(size, spans(taps, dilation), strides, padding)
    return [one_an_axis(pad, 2) for pad in one_an_axis(padding, len(size))]


def spans(taps, dilation):
    return [(k - 1) * d + 1 for k, d in zip(taps, dilation or [1] * len(taps), strict=True)]


def consistent(padding, taps, dilation):
    """Of a transposed convolution, from pads of its input to those of its adjoint, and back."""
    axes = zip(spans(taps, dilation), padding, strict=True)
    return tuple((k - 1 - low, k - 1 - high) for k, (low, high) in axes)


def transposed(padding, taps, strides, dilation):
    """Pads of the dilated input, for `size · strides` outputs, or for all that a window touches."""
    pairs = []
    for k, stride in zip(spans(taps, dilation), strides, strict=True):
        total = k + stride - 2 + (max(k - stride, 0) if padding == "VALID" else 0)
        low = min(k - 1, -(-total // 2))
        pairs.append((low, total - low))
    return pairs


# A process of its own ----------------------------------------------------------------------------


@contextmanager
def processes(ours="jaxcnn", quiet=True):
    """A function that evaluates a case by both at once; None is the result of one that died."""
    workers = {module: started(module, quiet) for module in (ours, REFERENCE)}

    def evaluated(case):
        futures = [(module, workers[module].submit(evaluate, module, case)) for module in workers]
        results = []
        for module, future in futures:
            try:
                results.append(future.result())
            except BrokenProcessPool:
                results.append(None)
                workers[module].shutdown()
                workers[module] = started(module, quiet)
        return results

    try:
        yield evaluated
    finally:
        for worker in workers.values():
            worker.shutdown()


def started(module, quiet):
    worker = ProcessPoolExecutor(1, get_context("spawn"), prepare, (module, quiet))
    worker.submit(int).result()  # a module that can't be imported is an error here
    return worker


def prepare(module, quiet):
    """In the worker, whose settings are its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    if module == REFERENCE:  # it gives the numbers; what is tested is compiled as a user does
        jax.config.update("jax_disable_most_optimizations", True)
    importlib.import_module(module)
    if quiet:  # XLA has many last words
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def evaluate(module, case):
    """The value and the cotangents of all arrays, or an error's text."""
    name, shapes, keywords, ties = case
    function = partial(getattr(importlib.import_module(module), name), **keywords)
    signal.alarm(SECONDS)  # ends the process
    try:
        return value_and_cotangents(function, arrays(shapes, ties))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def value_and_cotangents(function, args):
    @jax.jit  # once for all of them
    def both(dy, *args):
        y, vjp = jax.vjp(function, *args)
        return y, *vjp(dy)

    dy = draw(1, jax.eval_shape(function, *args).shape)
    return [np.asarray(array) for array in both(dy, *args)]


def arrays(shapes, ties):
    if ties:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 3, shape).astype(np.float64) for shape in shapes]
    return [draw(seed, shape) for seed, shape in enumerate(shapes, 2)]


# The judges --------------------------------------------------------------------------------------


def judge(case, evaluated):
    """What the reference did, where jaxcnn is right by it or by the loop; else AssertionError."""
    found, wanted = evaluated(case)
    assert found is not None, "the process died"
    assert not isinstance(found, str), found
    verdict = "agrees"
    if not isinstance(wanted, list):
        verdict = "aborted" if wanted is None else "has no gradient"
        wanted = loop(*case)
    for number, (ours, other) in enumerate(zip(found, wanted, strict=True)):
        assert ours.dtype == np.float64
        assert_close(ours, other, what=f"cotangent of argument {number - 1}" if number else "value")
    return verdict


def loop(name, shapes, keywords, ties):
    """The value and the cotangents of all arrays, by NumPy."""
    function = {
        "conv": conv,
        "conv_general_dilated": conv_general_dilated,
        "conv_transpose": conv_transpose,
        "max_pool": partial(extreme_pool, 1),
        "min_pool": partial(extreme_pool, -1),
        "avg_pool": avg_pool,
    }[name]
    return function(*arrays(shapes, ties), **keywords)


def conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    batch_group_count=1,
):
    ones = (1,) * (lhs.ndim - 2)
    layout = dimension_numbers or channels_first(ones)
    (lhs_axes, rhs_axes, y_axes), (x_axes, kernel_axes, _) = layout, as_channels_last(layout)
    x = np.einsum(f"{lhs_axes}->{x_axes}", lhs)
    kernel = np.einsum(f"{rhs_axes}->{kernel_axes}", rhs)
    size, taps, dilation = x.shape[1:-1], kernel.shape[:-2], rhs_dilation or ones
    geometry = (
        window_strides,
        resolved(padding, size, taps, window_strides, dilation),
        dilation,
        lhs_dilation or ones,
        feature_group_count,
        batch_group_count,
    )
    y = np.einsum(f"{x_axes}->{y_axes}", oracles.general_conv(x, kernel, *geometry))
    dy = np.einsum(f"{y_axes}->{x_axes}", draw(1, y.shape))
    dx, dkernel = oracles.general_conv_grads(x, kernel, dy, *geometry)
    dlhs = np.einsum(f"{x_axes}->{lhs_axes}", dx)
    return y, dlhs, np.einsum(f"{kernel_axes}->{rhs_axes}", dkernel)


def conv(
    x,
    kernel,
    bias=None,
    strides=1,
    padding="SAME",
    input_dilation=1,
    kernel_dilation=1,
    feature_group_count=1,
):
    rank = x.ndim - 2
    strides, input_dilation, kernel_dilation = (
        one_an_axis(value, rank) for value in (strides, input_dilation, kernel_dilation)
    )
    padding = resolved(padding, x.shape[1:-1], kernel.shape[:-2], strides, kernel_dilation)
    layout = channels_last(strides)
    y, *cotangents = conv_general_dilated(
        x, kernel, strides, padding, input_dilation, kernel_dilation, layout, feature_group_count
    )
    if bias is None:
        return y, *cotangents
    return y + bias, *cotangents, draw(1, y.shape).sum(tuple(range(y.ndim - 1)))


def conv_transpose(
    lhs,
    rhs,
    strides,
    padding,
    rhs_dilation=None,
    dimension_numbers=None,
    transpose_kernel=False,
    use_consistent_padding=False,
):
    layout = dimension_numbers or channels_last(strides)
    spatial = [axis for axis, letter in enumerate(layout[1]) if letter in "XYZ"]
    taps = [rhs.shape[axis] for axis in spatial]
    if isinstance(padding, str):
        padding = transposed(padding, taps, strides, rhs_dilation)
    elif use_consistent_padding:
        padding = consistent(padding, taps, rhs_dilation)

    def turned(kernel):
        if not transpose_kernel:
            return kernel
        return np.flip(kernel, spatial).swapaxes(layout[1].index("I"), layout[1].index("O"))

    y, dlhs, drhs = conv_general_dilated(
        lhs, turned(rhs), (1,) * len(taps), padding, strides, rhs_dilation, layout
    )
    return y, dlhs, turned(drhs)


def extreme_pool(sign, x, **keywords):
    """`sign` 1 is the maximum; -1 is the minimum, which is one of what is negative."""
    images, dy, geometry = pooled(x, **keywords)
    y, dx = oracles.max_pool(sign * images, flat(dy, images), *geometry)
    return (sign * y).reshape(dy.shape), dx.reshape(x.shape)


def avg_pool(x, count_include_pad=True, **keywords):
    images, dy, (*geometry, dilation) = pooled(x, **keywords)
    arguments = flat(dy, images), *geometry, count_include_pad, dilation
    y, dx = oracles.avg_pool(images, *arguments)
    if not count_include_pad:  # 0 / 0, where there is nothing but padding
        ones, _ = oracles.avg_pool(np.ones(images.shape), *arguments)
        y = np.where(ones > 0, y, np.nan)
    return y.reshape(dy.shape), dx.reshape(x.shape)


def pooled(x, window_shape, strides=1, padding="VALID", window_dilation=1):
    """Images of one batch axis, the output's cotangent, and the geometry that the loop takes."""
    rank = len(window_shape)
    batch, size = x.shape[: -rank - 1], x.shape[-rank - 1 : -1]
    strides, dilation = one_an_axis(strides, rank), one_an_axis(window_dilation, rank)
    pairs = resolved(padding, size, window_shape, strides, dilation)
    outputs = oracles.output_sizes(size, window_shape, strides, pairs, dilation)
    images = x.reshape(np.prod(batch, dtype=int), *size, x.shape[-1])
    dy = draw(1, (*batch, *outputs, x.shape[-1]))
    return images, dy, (window_shape, strides, pairs, dilation)


def flat(dy, images):
    return dy.reshape(len(images), *dy.shape[1 - images.ndim :])


# The run -----------------------------------------------------------------------------------------


def fuzz(cases, number, seed, evaluated, advance=lambda: None):
    """How often each verdict fell. The smallest case that fails is printed, and is the last."""
    verdicts, failure = {}, ""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=max(number, 1),
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @hypothesis.given(cases)
    def run(case):
        nonlocal failure
        hypothesis.assume(repr(case) not in verdicts)  # each counts once
        try:
            verdict = judge(case, evaluated)
        except AssertionError as error:
            reason = " ".join(str(error).split())[:300]
            failure = f'PYTHONPATH=tests python -c "import fuzz; fuzz.check{case}"  # {reason}'
            raise
        if not failure:  # else hypothesis looks for a smaller one
            verdicts[repr(case)] = verdict
            advance()

    try:
        if number:
            run()
    except AssertionError:
        print(failure)
        return Counter(failed=1, **Counter(verdicts.values()))
    return Counter(verdicts.values())


def check(*case):
    """One case, judged, with what XLA has to say."""
    with processes(quiet=False) as evaluated:
        print(f"right: the reference {judge(case, evaluated)}")


def natural(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, not {text!r}")
    return int(text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--convolutions", type=natural, default=2000, metavar="N")
    parser.add_argument("--pools", type=natural, default=1000, metavar="N")
    parser.add_argument("--seed", type=natural, default=0, metavar="N")
    arguments = parser.parse_args()
    verdicts, done = Counter(), []
    bars = Progress(console=Console(stderr=True), redirect_stdout=False)  # long lines stay whole
    with processes() as evaluated, bars as progress:
        for cases in (convolutions, pools):
            number = getattr(arguments, cases.__name__)
            task = progress.add_task(cases.__name__, total=number)
            found = fuzz(
                cases(), number, arguments.seed, evaluated, partial(progress.advance, task)
            )
            verdicts += found
            done.append(f"{found.total()} {cases.__name__}")
    loops = verdicts["aborted"] + verdicts["has no gradient"]
    print(
        f"{', '.join(done)}: {verdicts['failed']} failed; {loops} judged by the loop (reference "
        f"aborted {verdicts['aborted']}, has no gradient {verdicts['has no gradient']})"
    )
    return 1 if verdicts["failed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
