"""Text of a user's files: on one line of the terminal, and as JSON."""

import pytest

from ect.runtime.text import brief_words, parsed, shown, shown_path


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2Jgone", "\u202egpj.exe", "\ud800", "a\x7f", "\r"])
def test_control_characters_are_written_as_escapes(text):
    assert shown(text).isprintable() and "\\" in shown(text)


def test_other_text_is_as_it_was_and_long_text_is_cut():
    assert shown("Grüße, 東京.png") == "Grüße, 東京.png"
    assert len(shown("x" * 500)) == 200 and shown("x" * 500).endswith("...")


def test_a_long_path_lacks_its_middle_and_the_rest_of_its_line_nothing():
    line = f"--data: /a{'b' * 4000}/c.file does not exist; allowed: the file that `prepare` writes"
    found = brief_words(line)
    assert len(found) < 400 and found.startswith("--data: /abb") and "..." in found
    assert found.endswith("b/c.file does not exist; allowed: the file that `prepare` writes")
    assert brief_words(found) == found


def test_a_long_path_with_spaces_lacks_its_middle_too():
    found = shown_path("/a" + " b" * 4000 + "\n/c.file")
    assert len(found) < 300 and found.startswith("/a b b") and found.endswith(r"b b\n/c.file")
    assert shown_path("a b/c.file") == "a b/c.file"


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"a":' * 5000 + "1" + "}" * 5000, "levels"),
        ("[" * 10**5, "levels"),
        ("[" * 500 + "]" * 500, "found 500 levels; allowed: at most 100"),
        ('{"seed": 1' + "0" * 10**6 + "}", "a whole number of more than 300 digits"),
        ("{", "Expecting property name"),
        ('{"a": {"seed": 0, "seed": 1}}', "found the key 'seed' twice; allowed: once"),
    ],
    ids=["object", "list", "500", "digits", "torn", "twice"],
)
def test_json_that_is_too_deep_or_has_huge_numbers_is_refused(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parsed(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_json_is_what_it_says():
    assert parsed('{"a": [1, 2.5, {"b": null}]}') == {"a": [1, 2.5, {"b": None}]}
