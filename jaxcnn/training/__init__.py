"""Training a model with either gradient, and using what it learnt.

    run.py            a whole run; settings.py what it was asked, outcome.py what it leaves
    loop.py, step.py  epochs, and the jitted step, over devices.py where there are several
    data.py           images and labels; sources.py, folders.py, images.py where they are from
    batches.py        in which order they come; augment.py how they are moved and mirrored
    optimizers.py     and schedules
    checkpoints.py    to go on from; stopping.py why a run ends before its end
    progress.py, events.py, pictures.py, evaluation.py   what one sees
    trained.py        a model that was trained; reading.py, prediction.py, saliency.py use it

`ops=jaxcnn` gives the hand-derived gradients and `ops=jaxcnn.reference` those of autodiff; nothing
else differs between the two. It needs `pip install 'jaxcnn[train]'`.
"""
