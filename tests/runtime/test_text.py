"""Names of a user's files on one line of the terminal."""

import pytest

from ect.runtime.text import shown


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2Jgone", "\u202egpj.exe", "\ud800", "a\x7f", "\r"])
def test_control_characters_are_written_as_escapes(text):
    assert shown(text).isprintable() and "\\" in shown(text)


def test_other_text_is_as_it_was_and_long_text_is_cut():
    assert shown("Grüße, 東京.png") == "Grüße, 東京.png"
    assert len(shown("x" * 500)) == 200 and shown("x" * 500).endswith("...")
