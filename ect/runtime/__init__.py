"""How any job runs on a machine: device, seeds, files, records, stops, several processes.

=============  ================================================================
`versions`     the version of what each stage computes; defaults of absent keys
`text`         text of a user's files, as it may be printed
`zips`         zips that only a password opens
`seeds`        seeds for named streams of random numbers
`device`       the device, its precision, deterministic operations
`checkpoint`   weights and training state, written atomically
`record`       run.json: what was computed, where, from what
`progress`     progress.json: how far a run is, for those who watch it
`stop`         what ends a run early: a signal, a time limit
`crash`        no third attempt after two that ended with the same error
`options`      the options of a command line, and a mistake in them as one line
`work`         the work in progress of a run: saved, locked, published
`distributed`  one job in several processes
`lease`        GPUs of one machine, each lent to one job at a time
`forks`        asks for a job's process to be forked from one with torch loaded
`forkserver`   which is that one
=============  ================================================================
"""
