"""One training run.

=============  =====================================================================
`distances`    the distance of f to its target
`parts`        settings -> objective, optimizer, learning rate
`average`      the moving averages of the weights
`reconstruct`  an average of a length that no run kept, from its milestones
`warp`         images under affine maps
`augment`      images changed at random, and what the network is told of it
`perfect`      the loss of a perfect model, of Gaussian data
`log`          means between two lines of the log; losses that are not finite
`memory`       what a step holds in memory, before it runs
`state`        network, averages, optimizer, images seen: what a run is at one moment
`starts`       what a run starts from and reads
`loop`         one step and the loop: the last page of the essay
`train`        the job: begin or resume, save, publish
=============  =====================================================================
"""
