"""Models, each a page: `init(key, ...) -> params, state` and `apply(params, state, x, ...)`."""
