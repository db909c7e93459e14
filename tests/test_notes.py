"""The worked examples of the notes that the project grew from, with their own numbers.

The notes' pictures show none; where a number was needed, it is chosen here and marked so.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from checking import draw

import jaxcnn
from jaxcnn.models import lenet5

LOGITS = np.array([0.23, 0.89, 0.45, 0.12])


def test_softmax_of_the_notes_logits():
    """The notes print (0.05, 0.7, 0.2, 0.05), which is not the softmax of their logits."""
    y = jaxcnn.softmax(LOGITS)
    np.testing.assert_allclose(y, [0.197, 0.381, 0.245, 0.176], atol=5e-4)
    assert abs(y.sum() - 1) < 1e-15
    assert LOGITS.sum() != 1  # "logits never add up to 1": these do not
    assert y.argmax() == 1  # the output class is y2


def test_cross_entropies_as_the_notes_write_them():
    """On the probabilities that the notes print, with the class they pick as the label."""
    p, y = jnp.array([0.05, 0.7, 0.2, 0.05]), jnp.array([0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(jaxcnn.categorical_cross_entropy(p, y), -np.log(0.7))
    wanted = -np.log([0.95, 0.7, 0.8, 0.95])
    np.testing.assert_allclose(jaxcnn.binary_cross_entropy(p, y), wanted)


IMAGE = np.pad([[25.0]], 1)[None, :, :, None]


def test_a_kernel_of_zeros_gives_zeros():
    assert (jaxcnn.conv(IMAGE, jnp.zeros((3, 3, 1, 1))) == 0).all()


def test_a_kernel_with_one_in_the_middle_gives_25_in_the_middle():
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1, 0, 0].set(1.0)
    y = jaxcnn.conv(IMAGE, kernel)[0, :, :, 0]
    assert y.tolist() == [[0, 0, 0], [0, 25, 0], [0, 0, 0]]


def test_the_middle_output_s_gradient_with_respect_to_the_kernel_is_the_image():
    """On the notes' image, and on one (chosen) without a zero in it."""
    for image in (IMAGE, np.arange(1.0, 10.0).reshape(1, 3, 3, 1)):
        _, vjp = jax.vjp(lambda kernel, x=image: jaxcnn.conv(x, kernel), jnp.zeros((3, 3, 1, 1)))
        (dkernel,) = vjp(jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0))
        np.testing.assert_array_equal(dkernel[:, :, 0, 0], image[0, :, :, 0])


def test_forward_sum():
    """Out(i, j) = sum_xy Image(i+x, j+y) · Filter(x, y), x and y from 0 to 2 (the notes say 3)."""
    image, kernel = draw(0, (5, 5, 3), (3, 3, 3))  # chosen: 5x5, 3 channels
    y = jaxcnn.conv(image[None], kernel[..., None], padding="VALID")[0, :, :, 0]
    for i in range(3):
        for j in range(3):
            total = sum(
                image[i + x, j + y, c] * kernel[x, y, c]
                for x in range(3) for y in range(3) for c in range(3)
            )  # fmt: skip
            np.testing.assert_allclose(y[i, j], total)


def test_kernel_gradient_sum():
    """dL/dFilter(x, y) = sum_ij dL/dOut(i, j) · Image(i+x, j+y), with 3 channels."""
    image, dy = draw(0, (5, 5, 3), (3, 3))  # chosen: 5x5 under a 3x3 filter
    dy_image = jnp.asarray(dy[None, :, :, None])
    dkernel = jaxcnn.conv_kernel_grad(image[None], dy_image, (3, 3), padding="VALID")[..., 0]
    _, vjp = jax.vjp(
        lambda k: jaxcnn.conv(image[None], k, padding="VALID"), jnp.zeros((3, 3, 3, 1))
    )
    for x in range(3):
        for y in range(3):
            for c in range(3):
                total = sum(dy[i, j] * image[i + x, j + y, c] for i in range(3) for j in range(3))
                np.testing.assert_allclose(dkernel[x, y, c], total)
                np.testing.assert_allclose(vjp(dy_image)[0][x, y, c, 0], total)


def test_max_pool_fills_a_matrix_of_the_image_s_size():
    """A 4x4 image under a 2x2 pool; the numbers are chosen. The pool has no parameters."""
    image = jnp.array([[1.0, 2, 8, 3], [4, 3, 1, 0], [5, 0, 1, 2], [1, 6, 9, 4]])
    y, vjp = jax.vjp(lambda x: jaxcnn.max_pool(x, (2, 2), (2, 2)), image[None, :, :, None])
    cotangents = vjp(jnp.array([[0.1, 0.2], [0.3, 0.4]])[None, :, :, None])
    assert y[0, :, :, 0].tolist() == [[4, 8], [6, 9]]
    assert len(cotangents) == 1  # the image's; there is no parameter to have one
    assert cotangents[0][0, :, :, 0].tolist() == [
        [0, 0, 0.2, 0],
        [0.1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0.3, 0.4, 0],
    ]


def test_the_update_is_one_step_of_sgd_to_the_last_bit():
    """w_new = w_old - eta dL/dw (the notes print dy/dw), for the weights and biases of LeNet-5."""
    eta = 0.1
    params, state = lenet5.init(jax.random.key(0))
    images, labels = jnp.asarray(draw(0, (4, 28, 28, 1)), jnp.float32), jnp.array([3, 1, 4, 1])

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = lenet5.apply(params, state, images, train=True)
            return jaxcnn.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.grad(loss)(params)

    @jax.jit
    def by_optax(params, dparams):
        optimizer = optax.sgd(eta)
        updates, _ = optimizer.update(dparams, optimizer.init(params))
        return optax.apply_updates(params, updates)

    @jax.jit
    def by_the_notes(params, dparams):
        return jax.tree.map(lambda w, dw: w - eta * dw, params, dparams)

    dparams = gradient(params)
    jax.tree.map(
        np.testing.assert_array_equal, by_optax(params, dparams), by_the_notes(params, dparams)
    )
