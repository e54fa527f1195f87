"""One training run.

=========  =====================================================================
`parts`    settings -> objective, optimizer, learning rate
`average`  the moving average of the weights
`perfect`  the loss of a perfect model, of Gaussian data
`log`      means between two lines of the log; losses that are not finite
`state`    network, average, optimizer, images seen: what a run is at one moment
`loop`     one step and the loop: the last page of the essay
`train`    the job: begin or resume, save, publish
=========  =====================================================================
"""
