"""Are the gradients of hand-written rules right? Of a model here, or of any function of yours.

    python scripts/compare_gradients.py
    python scripts/compare_gradients.py --model resnet18 --dtype float64
    python scripts/compare_gradients.py --function mypackage.layers:norm --shapes 8x5x5x3,3,3 --cost

Of a model: each rule that its loss calls on handwritten digits, then the loss as a whole, against
the same model of plain JAX. Of a function: its gradients against autodiff of it without its rules,
on normal numbers of the shapes given (`scalar` for none). `--json` prints one JSON object instead
of the tables. Exit codes: 0, all is right; 1, something is wrong, and the last lines say what; 2, a
bad argument or a missing package.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from arguments import MODELS, Parser, integer, script

if TYPE_CHECKING:
    from jaxcnn.compare import Report


def main() -> int:
    parser = Parser(__doc__)
    dtypes = ["float64", "float32", "bfloat16", "float16"]
    parser.add_argument("--model", choices=MODELS, help="default: lenet5")
    parser.add_argument("--function", metavar="PACKAGE.MODULE:NAME", help="instead of a model")
    parser.add_argument("--shapes", type=shapes, metavar="2x3,3", help="of its arguments")
    parser.add_argument("--dtype", choices=dtypes, default="float32")
    parser.add_argument("--cost", action="store_true", help="also time, work and memory")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--batch-size", type=integer(1, 1000), default=8, metavar="N")
    parser.add_argument("--seed", type=integer(0, 2**32 - 1), default=0, metavar="N")
    arguments = parser.parse_args()
    if arguments.function and arguments.model:
        parser.error("argument --function: not allowed with --model")
    if bool(arguments.function) != bool(arguments.shapes):
        parser.error("arguments --function and --shapes: either needs the other")
    parser.require("jaxcnn", "jax", "optax", "rich", *([] if arguments.function else ["sklearn"]))

    # Here and not above: jax takes seconds to import, and a bad argument is told at once.
    import jax
    from rich.console import Console

    # A pipe has no width: what the tables need, instead of the 80 that are assumed of it.
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False)
    found: list[Report] = []
    with jax.enable_x64(arguments.dtype == "float64"):
        try:
            made = of_function(arguments) if arguments.function else of_model(arguments)
        except (ImportError, AttributeError, ValueError) as error:
            parser.error(f"argument --function: {error}")
        for said, compare in made:
            with Console(stderr=True).status(said):
                try:
                    report = compare()
                except (TypeError, ValueError) as error:
                    parser.error(str(error).splitlines()[0])
            found.append(report)
            if not arguments.json:
                console.print(report)
    if arguments.json:
        ok = all(report.ok for report in found)
        reports = [report.to_dict() for report in found]
        print(json.dumps({"ok": ok, "dtype": arguments.dtype, "reports": reports}))
        print(
            "\n".join(finding for report in found for finding in report.findings), file=sys.stderr
        )
    return 0 if all(report.ok for report in found) else 1


Comparisons = Iterator[tuple[str, Callable[[], "Report"]]]  # what is said meanwhile


def of_function(arguments: argparse.Namespace) -> Comparisons:
    """The comparison of a function that the user names."""
    import jax
    import numpy as np

    from jaxcnn import compare_gradients

    sys.path.insert(0, os.getcwd())
    module, _, name = arguments.function.partition(":")
    if not name:
        raise ValueError(f"must be package.module:name, not {arguments.function!r}")
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    rng = np.random.default_rng(arguments.seed)
    dtype = jax.numpy.dtype(arguments.dtype)
    args = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in arguments.shapes]
    key = jax.random.key(arguments.seed)

    def compare() -> "Report":
        return compare_gradients(function, *args, key=key, cost=arguments.cost)

    return iter([(f"comparing {name}", compare)])


def of_model(arguments: argparse.Namespace) -> Comparisons:
    """Each rule of a model's loss, then the loss."""
    import jax
    import numpy as np

    import jaxcnn
    from jaxcnn.models import MODELS
    from jaxcnn.training.data import digits

    name = arguments.model or "lenet5"
    model, options = MODELS[name]
    rng = np.random.default_rng(arguments.seed)
    train = digits().train
    rows = rng.permutation(len(train.labels))[: arguments.batch_size]
    images, labels = train.images[rows], train.labels[rows]
    key = jax.random.key(arguments.seed)
    dtype = jax.numpy.dtype(arguments.dtype)
    params, state = jax.jit(lambda key: model.init(key, **options))(key)
    # Zero biases are ties and kinks, where there is more than one right gradient.
    drawn = jax.tree.map(lambda x: x if x.any() else 0.1 * rng.standard_normal(x.shape), params)
    params, state, images = jax.tree.map(
        lambda x: np.asarray(x).astype(dtype), (drawn, state, images)
    )

    def loss_of(ops: Any) -> Callable[[Any], Any]:
        def loss(params: Any) -> Any:
            # In float64, the same images and state.
            same = jax.tree.map(
                lambda x: x.astype(jax.tree.leaves(params)[0].dtype), (state, images)
            )
            logits, _ = model.apply(params, *same, ops=ops, train=True, key=key)
            return ops.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss.__name__ = f"{name}, {len(labels)} digits"
        return loss

    ours, plain = loss_of(jaxcnn), loss_of(jaxcnn.reference)

    def whole() -> "Report":
        return jaxcnn.compare_gradients(ours, params, against=plain, key=key, cost=arguments.cost)

    yield f"comparing the rules of {name}", lambda: jaxcnn.audit(ours, params, key=key)
    yield f"comparing {name}", whole


def shapes(text: str) -> list[tuple[int, ...]]:
    """`2x3,3,scalar` as a list of shapes."""
    try:
        return [
            () if part == "scalar" else tuple(int(n) for n in part.split("x"))
            for part in text.split(",")
        ]
    except ValueError:
        message = f"must be shapes such as 2x3,3,scalar, not {text!r}"
        raise argparse.ArgumentTypeError(message) from None


if __name__ == "__main__":
    script(main)
