"""Images -> features -> distances; traces and searches.

============  ============================================================================
`samples`     sets of sampled images: samples.npz, PNG files
`origin`      whether files come from one another, by the records beside them
`features`    images -> features, with any network
`classifier`  the study's own classifier, whose penultimate layer is a feature space
`pretrained`  Inception and DINOv2
`efficientnet` EfficientNet-Lite0
`metrics`     features -> Frechet and kernel distance, precision, recall, Inception score
`summary`     the job: what metrics derive from the training images' features alone
`sample`      the job: a model's images as samples.npz
`solve`       the job: trajectories of a model's ODE, for mid-training
`evaluate`    the jobs: features, and distances to the training images
`nearest`     the job: how near drawn images lie to training images
`trace`       the job: what a run learned, measured on its snapshots
`search`      the job: times of multistep sampling, searched and tested on different seeds
============  ============================================================================
"""
