"""Training a model with either gradient: data, one jitted step, the loop, and what a run leaves.

`ops=jaxcnn` gives the hand-derived gradients and `ops=jaxcnn.reference` those of autodiff; nothing
else differs between the two. `data`, `record`, `progress`, `pictures` and `run`, which joins them,
need `pip install 'jaxcnn[train]'`; `step` and `loop` do not.
"""
