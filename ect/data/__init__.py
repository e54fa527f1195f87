"""Images: from files to the dataset file, and from it to batches.

==============  ============================================================
`decode`        one image of any kind -> uint8 pixels
`folder`        the images of a folder or .zip: names, fingerprint
`classes`       the class of each image; which folders are splits
`shards`        the files of a dataset of many, and their splits
`webdataset`    the images and classes of .tar files
`parquet`       those of Parquet files, as HF `datasets` writes them
`sources`       where a dataset's images come from
`npz`           images drawn before, or elsewhere: samples.npz
`look`          what a look at the source says, before its job runs
`file`          the dataset file, written and read a few images at a time
`prepare`       the job: a source as a dataset file
`batches`       batches that depend on (seed, images seen)
`trajectories`  points of solved trajectories, in place of images with noise
==============  ============================================================
"""
