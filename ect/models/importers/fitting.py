"""What a foreign file must be: values among those allowed."""

from ect.models.about import Foreign, brief


def wanted(what, found, *allowed):
    """`found`, which must be one of `allowed`."""
    if found not in allowed:
        raise Foreign(what, brief(found), ", ".join(repr(value) for value in allowed))
    return found
