"""Optimisers and schedules of the learning rate, of optax's parts."""

import jax.numpy as jnp
import optax

WARMUP = 5  # epochs


def make_optimizer(
    name: str, rate: optax.Schedule, momentum: float = 0.0
) -> optax.GradientTransformation:
    """`sgd` or `momentum`, which are one with different defaults, `adam` or `adamw`.

    Raises:
        ValueError: another name.
    """
    match name:
        case "sgd" | "momentum":
            return optax.sgd(rate, momentum=momentum or None)
        case "adam":
            return optax.adam(rate)
        case "adamw":
            return optax.adamw(rate)
    raise ValueError(f"no optimizer {name!r}")


def make_schedule(name: str, peak: float, steps: int, epochs: int) -> optax.Schedule:
    """The learning rate of each step, counted from 0, of `epochs` of `steps`.

    `constant` stays at `peak`, `cosine` falls from it to zero by the end. `warmup_cosine` first
    rises to it, for five epochs (for half of all, where there are fewer than ten). `triangular` is
    the lower of two lines: one that rises to `peak` in five epochs, and one that falls from it.

    Raises:
        ValueError: another name.
    """
    total = steps * epochs
    warmup = min(WARMUP * steps, total // 2)
    match name:
        case "triangular":
            return triangular(peak, steps, epochs)
        case "constant":
            return optax.constant_schedule(peak)
        case "cosine":
            return optax.cosine_decay_schedule(peak, total)
        case "warmup_cosine":
            first = peak / (warmup + 1)
            return optax.warmup_cosine_decay_schedule(first, peak, warmup, total)
    raise ValueError(f"no schedule {name!r}")


def triangular(peak: float, steps: int, epochs: int) -> optax.Schedule:
    """The lower of two lines: to `peak` in five epochs of `steps`, and from it to zero in all.

    Of 20 epochs, it rises for four, to four fifths of `peak`.

    It rises slowly for the comparison's sake. Two gradients differ by rounding, sooner or later
    that decides a ReLU or a maximum near a tie, and at a high rate the two runs then drift apart.
    It falls to zero because a high rate at the end leaves the accuracy to chance.
    """
    return lambda step: (
        peak * jnp.minimum((step + 1) / (WARMUP * steps), 1 - step / (steps * epochs))
    )
