"""What the source itself promises: layers free of autodiff, and arrows that run one way."""

import ast
from pathlib import Path

import pytest

import jaxcnn

PACKAGE = Path(jaxcnn.__file__).parent
ABOVE = ["compare", "models", "training"]  # what builds on the layers
LAYERS = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in (*ABOVE, "reference.py", "__init__.py")
)
AUTODIFF = {
    "grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose", "jacrev", "jacfwd",
    "jacobian", "hessian", "custom_jvp", "custom_gradient", "backward_pass", "fwd_and_bwd",
}  # fmt: skip


def autodiff_in(source):
    """The lines of a module that name autodiff, or what is private in JAX."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # getattr(jax, "grad")
        if any(name in AUTODIFF or name in ("_src", "interpreters") for name in names):
            found.append(node.lineno)
    return found


def imports_of(path):
    """The full names of the modules, or of what is taken from them, that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.name)
def test_no_layer_calls_autodiff(path):
    assert autodiff_in(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "jax.grad(f)",
        "from jax import vjp as v",
        "import jax.interpreters.ad",
        "getattr(jax, 'linear_transpose')",
        "from jax._src.lax.convolution import _conv_general_dilated_transpose_rhs",
    ],
)
def test_autodiff_would_be_seen(source):
    assert autodiff_in(source) == [1]


@pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.name)
def test_no_layer_imports_the_reference_or_what_is_above_it(path):
    above = tuple(f"jaxcnn.{name}" for name in (*ABOVE, "reference"))
    assert not [name for name in imports_of(path) if name.startswith(above)]


def test_the_reference_imports_no_layer():
    assert not [name for name in imports_of(PACKAGE / "reference.py") if "jaxcnn" in name]


def test_the_library_needs_jax_and_optax_alone():
    allowed = ("jax", "optax", "numpy", "jaxcnn", "collections", "functools", "itertools", "math")
    allowed += ("operator", "typing")
    for path in [*LAYERS, PACKAGE / "__init__.py", PACKAGE / "reference.py"]:
        assert not [name for name in imports_of(path) if name.split(".")[0] not in allowed]


def test_every_public_function_has_a_reference_twin_and_no_module_its_name():
    compare = {"audit", "compare_gradients", "drop_custom_vjp"}
    public = set(jaxcnn.__all__) - {"reference"} - compare
    twins = public - {"conv_input_grad", "conv_kernel_grad"}  # parts of a backward pass
    assert set(jaxcnn.reference.__all__) == twins
    assert not public & {path.stem for path in PACKAGE.iterdir()}
    assert jaxcnn.__all__ == sorted(jaxcnn.__all__)


@pytest.mark.parametrize("path", sorted((PACKAGE / "_cpu").glob("*.py")), ids=lambda p: p.name)
def test_how_a_sum_is_evaluated_knows_no_layer(path):
    below = ("jaxcnn._cpu", "jaxcnn._order", "jaxcnn._taps", "jaxcnn._window")
    assert not [
        name
        for name in imports_of(path)
        if name.startswith("jaxcnn") and not name.startswith(below)
    ]
