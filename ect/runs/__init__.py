"""What finished and running jobs left: found, watched, compared, verified.

========== ===============================================
`find`     the runs under a folder
`whole`    how far a whole run of Snakemake is
`pending`  which jobs Snakemake would run
`status`   what runs, how far it is, what waits
`compare`  runs side by side, and what differs between two
`form`     what is wrong with a file's form
`curves`   the logs of runs as events of TensorBoard
`verify`   whether results still fit together
`terminal` what `snakemake` prints of a run
========== ===============================================
"""
