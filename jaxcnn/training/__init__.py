"""Training a model with either gradient: data, one jitted step, the loop, and what a run leaves.

`ops=jaxcnn` gives the hand-derived gradients and `ops=jaxcnn.reference` those of autodiff; nothing
else differs between the two. `step` and `loop` need JAX and optax alone; the digits of `data`,
`progress`, `pictures` and `run`, which joins them all, need `pip install 'jaxcnn[train]'`.
"""
