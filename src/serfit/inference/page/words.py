"""What the page says, in every language it speaks: a file each in `languages`.

Braces hold what is filled in; a test checks that every language fills in the same.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from serfit.errors import UserError
from serfit.inference.pictures import Captions


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one language.

    Attributes:
        own_name: the language's name for itself.
        locale: BCP 47 tag, for the browser.
        captions: what stands in pictures, and the names of dimensions and columns.
    """

    own_name: str
    locale: str
    captions: Captions
    title: str
    intro: str
    choose_language: str
    one_network: str
    networks: str
    scale: str
    tested: str
    expected: str
    speech: str
    limits: str
    privacy: str
    reading: str
    listening: str
    mean: str
    whole: str
    spread: str
    table: str
    download: str
    meaning: str
    too_big: str
    too_long: str
    too_short: str
    unreadable: str
    damaged: str
    gone: str
    failed: str


def _read(code: str) -> Words:
    text = (files("serfit.inference.page") / "languages" / f"{code}.toml").read_text(encoding="utf-8")
    read = tomllib.loads(text)
    return Words(**{**read, "captions": Captions(**read["captions"])})


LANGUAGES: Mapping[str, Words] = {code: _read(code) for code in ("en", "zh", "de", "es")}
"""By the code that stands in the page's address; the first is taken where nothing else is wished."""


def spoken(code: str) -> str:
    """A language that the page speaks. Raises UserError for others."""
    if code not in LANGUAGES:
        raise UserError(f"--language is {code} and must be one of {', '.join(LANGUAGES)}")
    return code


def wished(header: str) -> str:
    """The language of the page that a browser wishes most.

    Args:
        header: its Accept-Language (RFC 9110, section 12.5.4); anything else counts as no wish.

    >>> wished("fr-CH, zh-TW;q=0.7, en;q=0.3"), wished("de;q=0, es;q=0.1"), wished("tlh")
    ('zh', 'es', 'en')
    """
    best, weight = next(iter(LANGUAGES)), 0.0
    for part in header.split(","):
        tag, _, quality = part.partition(";")
        name, _, value = quality.strip().partition("=")
        try:
            counts = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        code = tag.strip().lower().partition("-")[0]
        if code in LANGUAGES and counts > weight:
            best, weight = code, counts
    return best
