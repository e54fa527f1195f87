"""A model file: built, sampled, loaded in a program, imported, exported.

===========  ========================================================
`about`      what a model file says of its model: typed and bounded
`trust`      which plugins a model file may run
`build`      a description -> network, process, consistency function
`draw`       images from a model, each from its seed
`steps`      the noise levels that "2 steps" stands for: the study's
`load`       a trained model, for use in a program
`importers`  models from elsewhere -> model.safetensors
`export`     a model as a folder that samples without this package
===========  ========================================================
"""
