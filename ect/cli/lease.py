"""The verb that runs a command with GPUs of its own."""

from collections.abc import Callable

from ect.cli.arguments import count
from ect.runtime.lease import become, take


def lease(args):
    take(args.gpus)
    become(args.command)


VERBS: dict[Callable, tuple[str, dict]] = {
    lease: (
        "wait for free GPUs of this machine, and run a command that alone has them",
        {
            "--gpus": {"type": count, "required": True},
            "command": {"nargs": "+", "help": "after --, with its arguments"},
        },
    ),
}
