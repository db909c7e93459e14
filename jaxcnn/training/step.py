"""One step of training, compiled as one: augmentation, forward, backward, the optimiser's update.

On several devices the batch is divided between them, by `jax.shard_map`, and the parameters are on
all of them. Each device works out the gradients of its own images, by the same rules as one device
would; `lax.psum` adds them up. Moments of batch norm and masks of dropout are those of the whole
batch, so that the step is the one of a single device, but for rounding.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike, DTypeLike

import jaxcnn
from jaxcnn._compiler import known
from jaxcnn.normalization import AxisName
from jaxcnn.training.augment import random_crop, random_flip

Tree = Any  # a nested dict of arrays, such as a model's parameters

BATCH = "batch"  # the mesh's axis, over which a batch is divided
NEVER = np.iinfo(np.int32).max
# Bytes of a program's temporary memory that are one allocation. XLA:CPU makes a single one of all,
# and what is of 32 MiB or more glibc's malloc maps anew for each step: 33,000 page faults in one of
# MobileNet of 64 images, a fifth of its time. Smaller pieces it keeps: 0 to 6,000.
PIECE = 24 * 2**20


class Carry(NamedTuple):
    """What a step takes and gives back. The step reuses its memory: the one given is gone."""

    params: Tree
    state: Tree
    optimizer_state: Tree
    key: Array  # the data of a key of jax.random
    step: Array  # how many steps there have been
    loss: Array  # summed over the images seen in this epoch, on the device
    correct: Array  # how many of them were classified right
    broken: (
        Array  # the first step with a loss, with a gradient of each parameter, not finite; NEVER
    )


class Recipe(NamedTuple):
    """What a step does besides the model's forward and backward pass."""

    optimizer: optax.GradientTransformation
    crop: int = 0  # pixels, of `random_crop`
    flip: bool = False  # `random_flip`
    dtype: DTypeLike = jnp.float32  # of the forward and backward pass; parameters are float32
    mesh: Mesh | None = None  # the devices, along the axis `BATCH`; one where there is no mesh


def start(
    init: Callable[[Array], tuple[Tree, Tree]],
    optimizer: optax.GradientTransformation,
    seed: int,
) -> Carry:
    """The carry before the first step, of the parameters and the state that `init` draws."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params, state = jax.jit(init)(init_key)
    return Carry(
        params,
        state,
        optimizer.init(params),
        jax.random.key_data(key),
        step=jnp.zeros((), jnp.int32),
        loss=jnp.zeros(()),
        correct=jnp.zeros((), jnp.int32),
        broken=jnp.full(1 + len(jax.tree.leaves(params)), NEVER, jnp.int32),
    )


def new_epoch(carry: Carry) -> Carry:
    """The same carry with no image seen."""
    return carry._replace(loss=jnp.zeros_like(carry.loss), correct=jnp.zeros_like(carry.correct))


def pixels(images: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """What a model is given: bytes become numbers from 0 to 1, which others are already."""
    scale = 255 if jnp.issubdtype(images.dtype, jnp.integer) else 1
    return (images / scale).astype(dtype)


def mean_loss(
    params: Tree,
    state: Tree,
    x: Array,
    labels: Array,
    key: Array,
    *,
    model: ModuleType,
    ops: ModuleType,
    axis_name: AxisName = None,
) -> tuple[Array, tuple[Tree, Array]]:
    """The mean cross entropy of a batch; beside it the new state, and how many were right.

    With an `axis_name`, of the whole batch, of which this device has its share.
    """
    cast = partial(jnp.asarray, dtype=x.dtype)
    logits, state = model.apply(
        jax.tree.map(cast, params), state, x, ops=ops, train=True, key=key, axis_name=axis_name
    )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    loss = ops.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    correct = (logits.argmax(-1) == labels).sum(dtype=jnp.int32)
    if axis_name is not None:
        loss, correct = lax.pmean(loss, axis_name), lax.psum(correct, axis_name)
    return loss, (state, correct)


def make_train_step(model: ModuleType, ops: ModuleType, recipe: Recipe) -> jax.stages.Wrapped:
    """A jitted `train_step(carry, images, labels) -> carry, gradients, broken`.

    It donates its carry, `carry.broken` included, which is therefore returned for itself, too. On a
    CPU it is faster by `compile_step`.

    `jax.value_and_grad` finds the rules of `ops`: with `ops=jaxcnn` the whole backward pass of the
    model is hand-derived, with `ops=jaxcnn.reference` it is autodiff's.

    The batch is divided over `recipe.mesh` where it can be divided evenly; where not, each device
    works on all of it, which comes to the same.
    """
    optimizer, mesh = recipe.optimizer, recipe.mesh

    def update(
        carry: Carry, images: Array, labels: Array, axis_name: AxisName = None
    ) -> tuple[Carry, Tree, Array]:
        keys = jax.random.split(jax.random.wrap_key_data(carry.key), 4)
        key, dropout_key, crop_key, flip_key = keys
        if recipe.crop:
            images = random_crop(crop_key, images, recipe.crop, axis_name=axis_name)
        if recipe.flip:
            images = random_flip(flip_key, images, axis_name=axis_name)
        x = pixels(images, recipe.dtype)
        loss_of = partial(mean_loss, model=model, ops=ops, axis_name=axis_name)
        (loss, (state, correct)), grads = jax.value_and_grad(loss_of, has_aux=True)(
            carry.params, carry.state, x, labels, dropout_key
        )
        updates, optimizer_state = optimizer.update(grads, carry.optimizer_state, carry.params)
        finite = jnp.stack([jnp.isfinite(v).all() for v in [loss, *jax.tree.leaves(grads)]])
        seen = len(labels) * (1 if axis_name is None else lax.axis_size(axis_name))
        after = Carry(
            optax.apply_updates(carry.params, updates),
            state,
            optimizer_state,
            jax.random.key_data(key),
            step=carry.step + 1,
            loss=carry.loss + loss * seen,
            correct=carry.correct + correct,
            broken=jnp.minimum(carry.broken, jnp.where(finite, NEVER, carry.step + 1)),
        )
        return after, grads, after.broken

    def train_step(carry: Carry, images: Array, labels: Array) -> tuple[Carry, Tree, Array]:
        if mesh is None or len(labels) % mesh.size:
            return update(carry, images, labels)
        divided = jax.shard_map(
            partial(update, axis_name=BATCH),
            mesh=mesh,
            in_specs=(P(), P(BATCH), P(BATCH)),
            out_specs=P(),
        )
        return divided(carry, images, labels)

    return jax.jit(train_step, donate_argnums=0)


def compile_step(step: jax.stages.Lowered, **options: Any) -> jax.stages.Compiled:
    """What `step.lower(...)` gives, compiled: on a CPU with temporary memory in pieces of `PIECE`.

    JAX's cache of programs takes none of several pieces, and warns. An array larger than a piece is
    one of its own: XLA warns of each, unless `TF_CPP_MIN_LOG_LEVEL` is 2 in the environment when
    JAX is imported. `options` of XLA's, by their names, go before.
    """
    if jax.default_backend() == "cpu":
        options = known({"xla_multiheap_size_constraint_per_heap": PIECE}) | options
    return step.compile(options)


def make_test_step(
    model: ModuleType, ops: ModuleType, dtype: DTypeLike = jnp.float32
) -> jax.stages.Wrapped:
    """A jitted `test_step(params, state, images, labels) -> losses, logits`, a row an image."""

    def test_step(params: Tree, state: Tree, images: Array, labels: Array) -> tuple[Array, Array]:
        params = jax.tree.map(partial(jnp.asarray, dtype=dtype), params)
        logits, _ = model.apply(params, state, pixels(images, dtype), ops=ops)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return ops.softmax_cross_entropy_with_integer_labels(logits, labels), logits

    return jax.jit(test_step)


def gradient_errors(
    model: ModuleType, carry: Carry, images: ArrayLike, labels: ArrayLike
) -> dict[str, float]:
    """Hand-derived against autodiff's gradient, `max|a - b| / max|b|` for each parameter.

    Both in float64: in float32, where two maxima are the same but for rounding, each gradient may
    take another one's side, and be right. A gradient of zeros counts as right only if the other is
    zero as well.
    """

    def gradients(ops: ModuleType) -> dict[str, np.ndarray]:
        def loss(params: Tree, state: Tree, key: Array, images: Array, labels: Array) -> Array:
            x, key = pixels(images, jnp.float64), jax.random.wrap_key_data(key)
            return mean_loss(params, state, x, labels, key, model=model, ops=ops)[0]

        params, state = jax.tree.map(partial(np.asarray, dtype=np.float64), carry[:2])
        return flat(jax.jit(jax.grad(loss))(params, state, carry.key, images, labels))

    with jax.enable_x64(True):
        ours, autodiff = gradients(jaxcnn), gradients(jaxcnn.reference)
    tiny = np.finfo(np.float64).tiny
    return {
        name: float(np.abs(ours[name] - b).max() / max(np.abs(b).max(), tiny))
        for name, b in autodiff.items()
    }


def flat(tree: Tree) -> dict[str, np.ndarray]:
    """A tree's leaves on the host, by names such as `conv1/kernel`.

    >>> flat({"conv1": {"bias": jnp.zeros(2)}})
    {'conv1/bias': array([0., 0.], dtype=float32)}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.array(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
