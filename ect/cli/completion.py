"""The verb that prints a shell's completion of the command `ect`."""

from collections.abc import Callable

SCRIPT = """\
_ect() {{
  local words="{verbs}"
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _ect ect"""


def completion(args):
    print(script(args.verbs, args.shell))


def script(verbs, shell):
    """The completion of a command line's verbs and their options; file names where neither fits."""
    lines = [
        f'    {name}) [ "$COMP_CWORD" -gt 1 ] && words="{" ".join(options)}" ;;'
        for name, options in verbs.items()
    ]
    first = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return first + SCRIPT.format(verbs=" ".join(verbs), cases="\n".join(lines))


VERBS: dict[Callable, tuple[str, dict]] = {
    completion: (
        'completion of `ect` for a shell: eval "$(ect completion bash)"',
        {"shell": {"choices": ("bash", "zsh")}},
    ),
}
