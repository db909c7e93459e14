"""Is each gradient of LeNet-5 right? Prints jaxcnn's against autodiff's and against differences.

    python scripts/compare_gradients.py
    python scripts/compare_gradients.py --dtype float64 --json

A row for each input of each call in the forward pass of handwritten digits, with a random
cotangent, then one for each parameter: the gradient of the mean loss. "autodiff" is the error of
jaxcnn in `--dtype` against autodiff in float64: the largest, the largest relative to the largest
entry (for a parameter in norm), and what rounding allows it to be. "central differences" is the
relative error against these, both in float64, or `kink` where each straddles one. Exit codes: 0,
all agree; 1, some do not, and the last line names them; 2, a bad argument or a missing package.
"""

import sys

from arguments import Parser, integer


def main() -> int:
    parser = Parser(__doc__)
    dtypes = ["float64", "float32", "bfloat16"]
    parser.add_argument("--dtype", choices=dtypes, default="float32")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--batch-size", type=integer(1, 1000), default=16, metavar="N")
    parser.add_argument("--seed", type=integer(0, 2**32 - 1), default=0, metavar="N")
    arguments = parser.parse_args()
    parser.require("jaxcnn", "jax", "optax", "sklearn", "rich")

    # Here and not above: jax takes seconds to import, and a bad argument is told at once.
    import jax
    import numpy as np
    from rich.console import Console

    from jaxcnn.compare import compare_model, draw_biases
    from jaxcnn.compare.report import table, to_json
    from jaxcnn.models import lenet5
    from jaxcnn.training.data import batches, digits

    train, _ = digits()
    images, labels = next(
        batches(train, arguments.batch_size, np.random.default_rng(arguments.seed))
    )
    params, state = jax.jit(lenet5.init)(jax.random.key(arguments.seed))
    rows = compare_model(
        lenet5,
        draw_biases(params, arguments.seed),
        state,
        images,
        labels,
        dtype=arguments.dtype,
        key=jax.random.key(arguments.seed),
    )
    wrong = [row.name for row in rows if not row.ok]
    verdict = f"WRONG: {', '.join(wrong)}" if wrong else f"all {len(rows)} gradients agree"
    if arguments.json:
        print(to_json(rows, arguments.dtype))
        print(verdict, file=sys.stderr)
    else:
        title = f"LeNet-5, {len(labels)} digits, {arguments.dtype}: jaxcnn's errors against"
        # A pipe has no width: the table's own, instead of the 80 that are assumed of it.
        console = Console(width=None if sys.stdout.isatty() else 100, markup=False)
        console.print(table(rows, title), highlight=False)
        print(verdict)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
