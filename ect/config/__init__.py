"""What the YAML says, typed and checked. Loads no torch.

=============  ==============================================================
`base`         what all blocks share: types, names, plugins
`places`       a YAML file with the place of every key
`dataset`      the block `dataset`: which images
`cells`        the cells of the study's grid, and their folders
`lengths`      the lengths of averages of weights
`augment`      images changed at random in training
`optimizer`    the optimizer and its learning rate
`network`      networks
`training`     pretraining recipes
`tune`         tuning recipes, and what a loss needs of them
`schedule`     a map t -> r and its options
`start`        a pretrained model from elsewhere (`init`)
`averages`     an average of another length, as a start
`evaluation`   feature space, samplers, evaluation
`published`    published numbers, and what may stand beside them
`experiments`  experiments, rows, figures, search
`tuned`        a tuned model, as a start
`errors`       every mistake in a config as one line
`load`         YAML files merged; blocks that are `like` another
`released`     model files of others by their names: where they are, their networks
`missing`      files that a study needs and does not find
`gaps`         whether the gap t - r of a schedule outlives fp32; the last gap
`kinds`        what the kind of an experiment asks of its rows
`checks`       checks across the blocks of a config
`compared`     what the grid of samples and `nearest` compare
`trajectories` solved trajectories of a pretrained model, for mid-training
`seeds`        whether the seeds of runs and images are apart
`fits`         what jobs will need: sizes, counts, classes, labels
`rates`        whether the learning rate of a run ever moves a weight
`unused`       keys that nothing of a study reads
`budget`       a budget, by which all numbers of images are scaled
`grid`         the blocks of a config, and the cells that they ask for
`config`       the whole config, read and checked
`reports`      the settings of the verbs that make tables and the page
`parts`        the parts that settings name, with their options apart
`verbs`        the settings of every verb, held to the same blocks
`drawing`      the settings of every figure
`reference`    docs/reference.md and the JSON Schema, written from the blocks
=============  ==============================================================
"""
