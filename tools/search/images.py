"""Pictures on disk, found by a picture or by the text that stands with them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from agentenv.errors import ConfigError, DataError, ToolError, ToolErrorKind, UnknownNameError
from agentenv.media import MediaStore, decode
from agentenv.spec import canonical_hash
from agentenv.tools.search.build import Progress, ShownProgress, cache_folder, counted, made_once, whole
from agentenv.tools.search.corpus import Corpus, EngineName, make_engine
from agentenv.tools.search.dense import products
from agentenv.tools.search.documents import (
    Columns,
    DocumentStore,
    Rows,
    Source,
    checked_row,
    document,
    rows_by_file,
    write_documents,
)
from agentenv.tools.search.lexical import Engine, Language
from agentenv.tools.search.looks import BITS, PARTS, SAME, PictureEmbedder, dhash, distances, has_lite0, lite0, tiles
from agentenv.tools.search.types import Hit

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

logger = logging.getLogger("agentenv")

FORMAT = "1"
_BATCH = 16
_SIDE = 512
_GUESSES = ("image", "picture", "image_path", "path", "file")
_CAPTIONS = ("text", "caption", "description", "title", "name")


class ImageCorpus(Corpus):
    """An `ImageRetriever`, and a `Retriever` over the pictures' texts. Made by `open_images`.

    Args:
        store: the documents; each hit's `image` is the picture as it is shown, at most 512 pixels a side.
        engine: ranks the texts.
        hashes: array (n, 32), see `looks.dhash`.
        vectors: array (rows, d) of unit vectors, or None without an embedder ...
        owners: ... and the document of each row, array (rows,).
        embedder: made the vectors.
    """

    def __init__(
        self,
        store: DocumentStore,
        engine: Engine,
        hashes: Any,
        vectors: Any = None,
        owners: Any = None,
        embedder: PictureEmbedder | None = None,
    ) -> None:
        super().__init__(store, engine)
        self.hashes, self.vectors, self.owners, self.embedder = hashes, vectors, owners, embedder
        self.name = f"pictures-{embedder.name if embedder else 'dhash'}-{engine.name}"

    def __repr__(self) -> str:
        return f"<ImageCorpus of {len(self):,} pictures, {self.name}>"

    @property
    def pictures(self) -> Path:
        """The folder in whose `media/` the hits' pictures are; the search tools tell the episode's store of it."""
        return self.store.folder

    async def search_image(self, image: bytes, k: int) -> list[Hit]:
        """The `k` pictures most like one. See `ImageRetriever`.

        Scores are cosines of the vectors (of the hashes' equal bits without an embedder), and 1 more for what the hash
        takes for the same picture.

        Raises:
            ToolError: it is no picture that can be read.
        """
        return await asyncio.to_thread(self.find_image, image, k)

    def find_image(self, image: bytes, k: int) -> list[Hit]:
        """As `search_image`, from sync code."""
        import numpy as np

        try:
            picture = decode(image)
        except DataError as error:
            raise ToolError(f"The image cannot be read: {error}.", ToolErrorKind.FAILED) from None
        if not len(self):
            return []
        apart = distances(self.hashes, dhash(picture))
        scores = 1.0 - 2.0 * apart / BITS if self.embedder is None else self._likeness(picture)
        scores = np.round(scores + (apart <= SAME), 5)
        order = np.lexsort((np.arange(len(scores)), apart * (apart <= SAME), -scores))[: max(0, k)]
        return [self.store.hit(int(number), float(scores[number])) for number in order]

    def _likeness(self, picture: Picture) -> Any:
        """The cosine of each document: of the best of its vectors."""
        import numpy as np

        assert self.embedder is not None
        best = np.full(len(self), -1.0, np.float32)
        np.maximum.at(best, self.owners, products(self.vectors, self.embedder.vectors([picture])[0]))
        return best


def open_images(
    source: Source,
    *,
    columns: Columns | Mapping[str, Any] | None = None,
    image: str = "",
    embed: PictureEmbedder | Literal["auto"] | None = "auto",
    engine: EngineName = "auto",
    language: Language = "english",
    broken: Literal["error", "skip"] = "error",
    key: str = "",
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> ImageCorpus:
    """Pictures that are searched by a picture and by text. Indexed at the first call, only opened afterwards.

    Args:
        source: as for `open_corpus`. A row holds a picture (a path, relative to the file that names it; the bytes of a
            file; or, as Hugging Face data sets have it, an object with `bytes` or `path`) beside its text.
        columns: which column holds what. The text is the caption; its usual names are tried.
        image: the column of the picture; its usual names are tried.
        embed: finds crops: "auto" is EfficientNet-lite0 where the extra `vision` is installed; None for hashes alone;
            or any `PictureEmbedder` (CLIP, SigLIP, DINOv2 ...).
        engine: searches the texts, as for `open_corpus`, and so does `language`.
        language: see `engine`.
        broken: a picture that cannot be read is an "error", or is left out ("skip") with a warning.
        key: as for `open_corpus`. Without it each picture is read once more to name the content.
        folder: where indices are kept; `cache_folder("search")` by default.
        progress: told how indexing goes on.

    Raises:
        UnknownNameError: no such file, column, engine.
        DataError: a row is malformed or, unless skipped, its picture; carries file and line.
        MissingExtraError: pillow, or what the embedder needs, is not installed.
    """
    if broken not in ("error", "skip"):
        raise ConfigError(f'broken={broken!r}: must be "error" or "skip"')
    tell, base = progress or ShownProgress(), Path(folder) if folder is not None else cache_folder("search")
    rows = Pictures(source, Columns.of(columns), image, broken)
    digest = canonical_hash([FORMAT, key or rows.content(), rows.columns, image, broken])[:32]

    def build(place: Path) -> None:
        _build(place, rows, tell)

    store = DocumentStore(made_once(base / f"pictures-{digest}", build), digest)
    return _opened(store, make_engine(store, engine, language, None, tell), embed, tell)


def _opened(store: DocumentStore, engine: Engine, embed: Any, progress: Progress) -> ImageCorpus:
    import numpy as np

    with whole(store.folder):
        hashes = np.load(store.folder / "dhash.npy")
    embedder: PictureEmbedder | None = (lite0() if has_lite0() else None) if embed == "auto" else embed
    if embedder is None:
        return ImageCorpus(store, engine, hashes)
    digest = canonical_hash([FORMAT, store.version, embedder.name, embedder.tiled])[:32]
    name = f"vectors-{digest}"

    def build(place: Path) -> None:
        _embed(place, store, embedder, progress)

    folder = made_once(store.folder.with_name(name), build)
    with whole(folder):
        vectors, owners = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "owners.npy")
    return ImageCorpus(store, engine, hashes, vectors, owners, embedder)


def _build(place: Path, rows: Pictures, progress: Progress) -> None:
    import numpy as np

    from agentenv.tools.image import Output
    from agentenv.tools.image.render import encode

    shown = Output(max_side=_SIDE, max_upscale=1.0, quality=90)
    media, hashes = MediaStore(place, max_bytes=0), []

    def documents() -> Iterator[Hit]:
        for hit, picture in counted(rows, "reading pictures", None, progress, every=50):
            small = picture.resize(shown.size(*picture.size), reducing_gap=2.0)
            made = media.put_encoded(encode(small, shown), "image/jpeg", *small.size)
            hashes.append(dhash(picture))
            yield msgspec.structs.replace(hit, image=made.sha256)

    write_documents(place, documents())
    np.save(place / "dhash.npy", np.stack(hashes) if hashes else np.zeros((0, BITS // 8), np.uint8))


def _embed(place: Path, store: DocumentStore, embedder: PictureEmbedder, progress: Progress) -> None:
    import numpy as np

    media, vectors = MediaStore(store.folder, max_bytes=0), []
    for start in range(0, len(store), _BATCH):
        parts: list[Picture] = []
        for number in range(start, min(start + _BATCH, len(store))):
            picture = decode(media.get(store.hit(number).image))
            parts += tiles(picture) if embedder.tiled else [picture]
        vectors.append(embedder.vectors(parts).astype(np.float16))
        progress("embedding pictures", min(start + _BATCH, len(store)), len(store))
    np.save(place / "owners.npy", np.repeat(np.arange(len(store)), PARTS if embedder.tiled else 1))
    np.save(place / "vectors.npy", np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float16))


# ---- rows ------------------------------------------------------------------------------------------------------------


class Pictures:
    """The documents of a source, each with its picture.

    Args:
        source, columns, image, broken: see `open_images`.
    """

    def __init__(self, source: Source, columns: Columns, image: str, broken: str) -> None:
        once = not callable(source) and not isinstance(source, (str, Path, Sequence))
        self.source: Source = list(cast("Rows", source)) if once else source
        self.columns, self.image, self.broken = columns, image, broken

    def content(self) -> str:
        """SHA-256 of all rows and pictures."""
        digest, encoder = hashlib.sha256(), msgspec.msgpack.Encoder()
        for hit, data, _ in self._rows():
            digest.update(encoder.encode((hit, hashlib.sha256(data).digest())))
        return digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[Hit, Picture]]:
        """Each document, without its `image`, and its pixels."""
        for hit, data, where in self._rows():
            try:
                yield hit, decode(data)
            except DataError as error:
                if self.broken == "error":
                    raise DataError(error.why, *where) from None
                logger.warning("%s is left out: %s", hit.id, error)

    def _rows(self) -> Iterator[tuple[Hit, bytes, tuple[str, int]]]:
        seen: set[str] = set()
        number = 0
        for file, rows in rows_by_file(self.source):
            chosen: Columns | None = None
            column = ""
            for line, row in rows:
                try:
                    if chosen is None:
                        column, chosen = self._columns(checked_row(row))
                    hit = document(row, chosen, number)
                    if hit.id in seen:
                        raise DataError(f"a second picture has the id {hit.id[:80]!r}")
                    yield hit, _file(row.get(column), Path(file).parent), (file, line)
                except DataError as error:
                    raise DataError(error.why, file, line) from None
                seen.add(hit.id)
                number += 1

    def _columns(self, row: Mapping[str, Any]) -> tuple[str, Columns]:
        """The column of the picture, and those of the document: a caption does for a title and for a text."""
        if self.image and self.image not in row:
            raise UnknownNameError("column", self.image, row)
        column = self.image or next((name for name in _GUESSES if name in row), "")
        if not column:
            raise DataError(f"no column for the picture; say image=...; there are {', '.join(row)}")
        text = self.columns.text or next((name for name in _CAPTIONS if name in row), "")
        return column, msgspec.structs.replace(self.columns, text=text).within(row)


def _file(value: Any, folder: Path) -> bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, (str, Path)):
        raise DataError(f"a picture is a path or the bytes of a file, not {type(value).__name__}")
    try:
        return (folder / value).read_bytes()
    except OSError as error:
        raise DataError(f"the picture {Path(value).name!r} cannot be read: {error.strerror}") from None
