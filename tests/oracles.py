"""Float64 loops in NumPy, written from the definitions: slow, and hard to get wrong.

They share nothing with the package: no geometry, no JAX, no adjoint trick. An index that falls
outside an image is skipped, because what stands there is zero (or, under a maximum, -inf).
"""

import itertools

import numpy as np


def indices(*sizes):
    return itertools.product(*(range(size) for size in sizes))


def output_sizes(size, taps, strides, pads, dilation):
    """Counted, not calculated: how many windows start inside and end inside the padded axis."""
    counts = []
    for n, k, s, (low, high), d in zip(size, taps, strides, pads, dilation, strict=True):
        starts = range(0, n + low + high, s)
        counts.append(sum(start + (k - 1) * d < n + low + high for start in starts))
    return tuple(counts)


def places(size, taps, strides, pads, dilation):
    """Every (output, tap, element) that meet, the element inside the image."""
    for o in indices(*output_sizes(size, taps, strides, pads, dilation)):
        for t in indices(*taps):
            i = tuple(
                s * a + d * b - low
                for s, a, d, b, (low, _) in zip(strides, o, dilation, t, pads, strict=True)
            )
            if all(0 <= a < n for a, n in zip(i, size, strict=True)):
                yield o, t, i


def conv(x, kernel, strides, pads, dilation):
    """Output of x (N, *size, C) under kernel (*taps, C, O)."""
    size, taps = x.shape[1:-1], kernel.shape[:-2]
    y = np.zeros((len(x), *output_sizes(size, taps, strides, pads, dilation), kernel.shape[-1]))
    for o, t, i in places(size, taps, strides, pads, dilation):
        for n, c, m in indices(len(x), x.shape[-1], kernel.shape[-1]):
            y[(n, *o, m)] += x[(n, *i, c)] * kernel[(*t, c, m)]
    return y


def conv_grads(x, kernel, dy, strides, pads, dilation):
    """Cotangents of x and kernel: each product of the forward sum, differentiated on its own."""
    dx, dkernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for o, t, i in places(x.shape[1:-1], kernel.shape[:-2], strides, pads, dilation):
        for n, c, m in indices(len(x), x.shape[-1], kernel.shape[-1]):
            dx[(n, *i, c)] += dy[(n, *o, m)] * kernel[(*t, c, m)]
            dkernel[(*t, c, m)] += dy[(n, *o, m)] * x[(n, *i, c)]
    return dx, dkernel


def general_conv(x, kernel, strides, pads, dilation, input_dilation, groups, batch_groups=1):
    """`conv` of what is dilated, cut into groups of the channels or of the batch."""
    parts = conv_parts(x, kernel, input_dilation, groups, batch_groups)
    return np.concatenate([conv(*part, strides, pads, dilation) for part in parts], -1)


def general_conv_grads(
    x, kernel, dy, strides, pads, dilation, input_dilation, groups, batch_groups=1
):
    """Cotangents of x and kernel: those of the parts, without the zeros of the dilation."""
    parts = conv_parts(x, kernel, input_dilation, groups, batch_groups)
    cotangents = np.split(dy, len(parts), -1)
    dxs, dkernels = zip(
        *(
            conv_grads(*part, part_dy, strides, pads, dilation)
            for part, part_dy in zip(parts, cotangents, strict=True)
        ),
        strict=True,
    )
    dx = np.concatenate(dxs, 0 if batch_groups > 1 else -1)
    return dx[(slice(None), *spread(input_dilation))], np.concatenate(dkernels, -1)


def conv_parts(x, kernel, input_dilation, groups, batch_groups):
    """x and kernel of each group, x with the zeros of its dilation."""
    size = [(n - 1) * e + 1 for n, e in zip(x.shape[1:-1], input_dilation, strict=True)]
    wide = np.zeros((len(x), *size, x.shape[-1]))
    wide[(slice(None), *spread(input_dilation))] = x
    axis = 0 if batch_groups > 1 else -1
    number = groups * batch_groups
    return list(zip(np.split(wide, number, axis), np.split(kernel, number, -1), strict=True))


def spread(distances):
    return [slice(None, None, distance) for distance in distances]


def max_pool(x, dy, taps, strides, pads, dilation=None):
    """Output and input cotangent of x (N, *size, C); the first of equal maxima takes all."""
    size, dilation = x.shape[1:-1], dilation or (1,) * len(taps)
    outputs = output_sizes(size, taps, strides, pads, dilation)
    y, dx = np.full((len(x), *outputs, x.shape[-1]), -np.inf), np.zeros(x.shape)
    winners = {}
    for o, _, i in places(size, taps, strides, pads, dilation):
        for n, c in indices(len(x), x.shape[-1]):
            if (n, *o, c) not in winners or x[(n, *i, c)] > y[(n, *o, c)]:
                y[(n, *o, c)] = x[(n, *i, c)]
                winners[(n, *o, c)] = (n, *i, c)
    for output, element in winners.items():
        dx[element] += dy[output]
    return y, dx


def avg_pool(x, dy, taps, strides, pads, count_include_pad, dilation=None):
    """Output and input cotangent of x (N, *size, C)."""
    size, dilation = x.shape[1:-1], dilation or (1,) * len(taps)
    outputs = output_sizes(size, taps, strides, pads, dilation)
    met = list(places(size, taps, strides, pads, dilation))
    count = np.zeros(outputs)
    for o, _, _ in met:
        count[o] += 1
    if count_include_pad:
        count[...] = np.prod(taps)
    y, dx = np.zeros((len(x), *outputs, x.shape[-1])), np.zeros(x.shape)
    for o, _, i in met:
        y[(slice(None), *o)] += x[(slice(None), *i)] / count[o]
        dx[(slice(None), *i)] += dy[(slice(None), *o)] / count[o]
    return y, dx
