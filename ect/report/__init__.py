"""Tables and figures: files in, files out. Loads no torch until something is written.

============  =========================================================================
`gather`      metrics.json files -> one frame; mean, sd and n over seeds
`markup`      cells of text -> Markdown and LaTeX
`style`       the style of every figure, and how it is saved
`quality`     FD against evaluations, the share of pretraining, by schedule, of solvers
`ends`        maps t -> r at equal last gaps, and last gaps at equal maps
`lengths`     FD against the length of the average of the weights
`tables`      the tables of an experiment, as csv, md and tex
`steps`       the table of searched times
`margin`      how far two means may lie apart before they are a difference
`paper`       the published numbers, and ours beside them
`variance`    components of variance: of the seeds of pretraining, tuning and sampling
`power`       how many replicates a difference needs
`noise`       the components as a table and a figure; what a study's comparisons need
`optimum`     the best share of a budget, how sure that is, and how it goes with the budget
`scaling`     FD against the share, and the best share against the budget
`maps`        the maps t -> r, stage by stage
`curves`      training loss
`grid`        samples from the same noise, model by model
`nearest`     how near generated images lie to training images: table and figure
`losspage`    why the loss stays flat while the samples improve
`figures`     the figures by name
`budget`      whether over 90 % of a budget belongs to pretraining, in sentences
`sentences`   which row of a table is best, and whether noise explains it
`planned`     how many replicates the comparisons of a study need, in sentences
`templates`   the layout of the page, and the captions, which are also those of Snakemake's report
`gallery`     samples of every model, on the page
`page`        all of it in one page: questions, figures, tables, sentences, provenance
============  =========================================================================

A figure's `out` is a path without suffix: out.pdf and out.png are written, a table's out.csv,
out.md and out.tex; the page's is its own path. The same inputs give the same bytes.
"""
