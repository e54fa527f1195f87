"""What a config comes to: the settings of every job, the jobs, their cost. Loads no torch.

==========  ===================================
`settings`  the settings that each job receives
`jobs`      every job of a study
`left`      which of them are to do
`cost`      what a study costs before it starts
`table`     that as text
`noise`     the spread that its comparisons meet
`advice`    what to know before the first job
==========  ===================================
"""
