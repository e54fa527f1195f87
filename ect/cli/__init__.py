"""The verbs of the command line, and what they accept.

============  ================================================================
`arguments`   arguments and settings, checked before torch is loaded
`files`       what a verb reads and writes: outputs checked, and recorded
`made`        whether what tables and figures read is as it was made
`jobs`        the verbs that make data, models and samples
`measure`     the verbs that measure them
`report`      the verbs that make tables, figures and the page
`runs`        the verbs that only read: status, show, diff, verify, plan
`lease`       the verb that runs a command with GPUs of its own
`completion`  the verb that prints a shell's completion
`main`        the command line
============  ================================================================
"""
