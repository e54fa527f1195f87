"""Easy Consistency Tuning, from pixels to tables.

The method is an essay of nine files. Read them in this order, with `networks.unet` for the network
F and `training.loop`, one step and one loop, as the last page:

===============  =============================================================================
`schedule`       1. the map t -> r and how it moves during a run
`process`        2. x_t = alpha(t) x_0 + sigma(t) eps, and the clock s = sigma / alpha
`consistency`    3. f(x_t, t), with f(x, 0) = x
`flowmap`        4. f(x_t, t, r), from t to any r; the priors of two times
`ode`            5. one step of dy/ds = (y - f) / s
`objective`      6. noise-level prior, distance, weight: the loss
`limit`          7. the loss at r -> t: the continuous limit (sCM)
`flowloss`       8. the losses of two times: MeanFlow, SoFlow, shortcut, self-distillation
`sampler`        9. multistep consistency, flow map, Euler, Heun, DPM-Solver++
===============  =============================================================================

Two files are public beside it, and every folder is a wing around it. A wing imports only what
tests/test_house.py allows it; its own docstring lists its files.

===============  =============================================================================
`registry`       the names that a config may use
`plugins`        schedules, processes, weights, samplers, features of your own
`networks`       U-Nets, their dropout, and CPU kernels: tensors in, tensors out
`runtime`        how any job runs on a machine: device, seeds, files, records, stops
`config`         what the YAML says, typed and checked
`study`          what a config comes to: the settings of every job, the jobs, their cost
`data`           images: from files to the dataset file, and from it to batches
`models`         a model file: built, sampled, loaded in a program, imported, exported
`training`       one training run
`evaluation`     images -> features -> distances; traces and searches
`report`         tables, figures, sentences, the page
`runs`           what jobs left: found, watched, compared, verified
`cli`            the verbs of the command line
===============  =============================================================================

Nothing heavy is imported here; `python -m ect --help` lists the verbs. In a program:

    import ect

    model = ect.load("results/digits/tune/ve/s0/k30/sigmoid/ect/k30/s0/model.safetensors")
    images = model.sample(16, steps=2, seed=0)  # numpy, uint8 (16, H, W, C)
"""

__version__ = "0.1.0"


def load(path, plugins=()):
    """The model in a model.safetensors; see `ect.models.load`. torch is loaded here, not before."""
    from ect.models.load import load

    return load(path, plugins)
