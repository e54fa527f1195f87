"""Text of a user's files, as it may be printed."""


def shown(text: object, limit: int = 200) -> str:
    """A name or message on one line, of at most `limit` characters.

    Control characters (newline, ESC, direction marks, ...) are written as escapes, so that no file
    name can move the cursor or fake a line of its own; what is cut is marked with '...'.
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."
