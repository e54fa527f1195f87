"""Images: from files to the dataset file, and from it to batches.

==============  ============================================================
`trajectories`  points of solved trajectories, in place of images with noise
==============  ============================================================
"""
