"""Text of a user's files and environment: as it may be printed, and as a number."""


def whole(name: str, text: str, least: int, most: int) -> int:
    """The whole number in an environment variable; raises `ValueError` that names it."""
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not least <= value <= most:
        raise ValueError(
            f"{name}: found '{shown(text, 60)}'; allowed: a whole number from {least} to {most}"
        )
    return value


def shown(text: object, limit: int = 200) -> str:
    """A name or message on one line, of at most `limit` characters.

    Control characters (newline, ESC, direction marks, ...) are written as escapes, so that no file
    name can move the cursor or fake a line of its own; what is cut is marked with '...'.
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."
