"""Easy Consistency Tuning, from pixels to tables, in the order one reads it.

==================  ==========================================================================
`schedule`          the map t -> r and how it moves during a run
`registry`          the names that a config may use
`plugins`           parts of one's own, in files that a config names
`config`            the blocks of a config, typed: feature space, samplers
`dataset`           its block that says which images
`recipe`            its blocks that say how a network is trained
`published`         published numbers, and what may stand beside them
`questions`         its blocks that ask: experiments, rows, figures
`mistakes`          a mistake in a config, as one line
`inherit`           a block of a config that is like another
`cells`             the models and samplers of a study, and their folders
`checks`            what the blocks of a study must say of one another
`whole`             the whole config, and the cells it asks for
`reference`         the reference of its keys, and its JSON Schema
`study`             such a config, and the settings of each job
`jobs`              every job of a study
`plan`              what a study costs before it starts
`machine`           the device, and the record of what was computed where
`process`           x_t = alpha(t) x_0 + sigma(t) eps, and the clock s = sigma / alpha
`dropout`           masks that belong to an image's place in its batch
`network`           the U-Net
`kernels`           for the CPU: convolution; norm, SiLU and dropout (kernels/*.c)
`native`            the U-Net's blocks in these kernels
`unet2d`            diffusers' U-Net, built by diffusers
`consistency`       f(x_t, t), with f(x, 0) = x
`ode`               one step of dy/ds = (y - f) / s
`objective`         time prior, distance, weight: the loss
`limit`             the losses at r -> t: the continuous limit (sCM), MeanFlow
`sampler`           multistep consistency, Euler, Heun, DPM-Solver++
`checkpoint`        weights and training state, written atomically
`progress`          work in progress: where it lies, who holds it, when a run is to stop
`crash`             a crash that only repeats itself
`running`           where a run is, for those who watch it
`pictures`          one picture of any kind -> uint8 pixels
`folders`           the images of a folder or .zip: names, classes, fingerprint
`sources`           where a dataset's images come from
`prepared`          the prepared dataset file, written and read a few images at a time
`data`              a source as such a file; batches that depend on (seed, images seen)
`drawing`           images from a model, each from its seed
`experiment`        a cell of the config -> process, model, objective, optimizer
`importers`         models from elsewhere -> (weights, about) of a model file
`meter`             what a run measures of itself: its log, and numbers that are none
`state`             what a run is at one moment
`parallel`          several processes that train one network
`train`             the loop; pretraining is the schedule r = 0
`samples`           sets of drawn images: samples.npz, PNG files
`features`          images -> features, whatever the network
`classifier`        the study's own network of features
`pretrained`        images -> features of networks trained elsewhere (Inception, DINOv2)
`metrics`           features -> Frechet and kernel distance, precision, recall, Inception score
`evaluate`          a model's images, and their distance to the training images
`trace`             what a run learned, measured on its snapshots
`search`            the times of multistep sampling, searched and tested on different seeds
`export`            a model as a folder that draws images without this package
`model`             a trained model in a program of one's own
`runs`              the runs under a folder, from the files that they leave
`report`            tables and figures: files in, files out
`status`            what runs, how far it is, what waits
`show`              experiments side by side, and what differs between two runs
`verify`            whether results still fit together
`given`             what a verb is given, and a mistake in it as one line
`lease`             GPUs of one machine, each lent to one job at a time
`looking`           the verbs that only look
`reporting`         the verbs that make tables, figures and the page
==================  ==========================================================================

Nothing heavy is imported here; `python -m ect --help` lists the verbs. In a program:

    import ect

    model = ect.load("results/digits/tune/ve/s0/k60/sigmoid/ect/k60/s0/model.safetensors")
    images = model.sample(16, steps=2, seed=0)  # numpy, uint8 (16, H, W, C)
"""

__version__ = "0.1.0"


def load(path):
    """The model in a model.safetensors; see `ect.model.Model`. torch is loaded here, not before."""
    from ect import model

    return model.load(path)
