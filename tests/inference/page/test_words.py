"""Every language of the page says everything, fills in the same, and is found by its browsers."""

import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.errors import UserError
from serfit.inference.page.words import LANGUAGES, Words, spoken, wished
from serfit.labels import DIMENSIONS

SAME_IN_SEVERAL = {"spread of captions"}


def texts(words: Words) -> dict[str, str]:
    captions = words.captions
    named = {field.name: getattr(words, field.name) for field in dataclasses.fields(Words)}
    named |= {f"{field.name} of captions": getattr(captions, field.name) for field in dataclasses.fields(captions)}
    named |= {f"name of {name}": text for name, text in captions.names.items()}
    named |= {f"poles of {name}": text for name, text in captions.poles.items()}
    return {name: text for name, text in named.items() if isinstance(text, str)}


def filled_in(text: str) -> set[tuple[str, str]]:
    return {(name, form or "") for _, name, form, _ in string.Formatter().parse(text) if name is not None}


def test_english_and_chinese_are_among_them() -> None:
    assert {"en", "zh"} <= set(LANGUAGES)
    assert next(iter(LANGUAGES)) == "en"


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_text_is_there_and_fills_in_the_same(code: str) -> None:
    words, english = texts(LANGUAGES[code]), texts(LANGUAGES["en"])
    assert words.keys() == english.keys()
    assert list(LANGUAGES[code].captions.names) == list(LANGUAGES[code].captions.poles) == list(DIMENSIONS)
    for name, text in words.items():
        assert text.strip() == text != "", name
        assert filled_in(text) == filled_in(english[name]), name
        assert "\n" not in text, name
        assert code == "en" or name in SAME_IN_SEVERAL or text != english[name], f"{name} isn't translated"
    assert words["locale"].partition("-")[0] == code


@pytest.mark.parametrize("code", LANGUAGES)
def test_numbers_fit_into_the_texts(code: str) -> None:
    words = LANGUAGES[code]
    numbers = {"minutes": 5.0, "megabytes": 100.0, "most": 5.0, "milliseconds": 3.2, "least": 25.0, "count": 3}
    numbers |= {"minimum": 1.0, "maximum": 5.0, "window": 3.0, "hop": 0.5, "done": 1.0, "total": 2.0}
    for text in texts(words).values():
        said = text.format(**numbers, scores="V 0.5")
        assert "{" not in said
    assert "5.000" not in words.limits.format(**numbers)


def test_the_language_most_wished_for_is_taken() -> None:
    assert wished("") == "en"
    assert wished("zh-CN,zh;q=0.9,en;q=0.8") == "zh"
    assert wished("en;q=0.5, de;q=0.6") == "de"
    assert wished("fr, ja;q=0.9") == "en"
    assert wished("es;q=0, zh;q=0.001") == "zh"


@given(st.text())
def test_any_header_gives_a_language(header: str) -> None:
    assert wished(header) in LANGUAGES


def test_other_languages_are_refused() -> None:
    assert spoken("zh") == "zh"
    with pytest.raises(UserError, match="--language is tlh and must be one of en, zh"):
        spoken("tlh")
