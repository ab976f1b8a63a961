"""Documents out of files and rows, and the store that keeps them: written once, mapped into memory, read by number.

A store is four files: `docs.bin` (one MessagePack record a document), `docs.idx` (where each begins), and `ids.idx` and
`urls.idx` (sorted hashes, to find a document by its id or its address).
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import msgspec
from msgspec import Struct

from agentenv.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from agentenv.spec import canonical_hash
from agentenv.tools.search.build import Progress, cache_folder, counted, made_once, whole
from agentenv.tools.search.types import Hit

FORMAT = "1"
"""Raised whenever the same source leads to another store."""

Rows = Iterable["Mapping[str, Any] | Hit"]
Source = str | Path | Sequence[str | Path] | Rows | Callable[[], Rows]

_GUESSES: dict[str, tuple[str, ...]] = {
    "id": ("id", "_id", "docid", "doc_id"),
    "text": ("text", "contents", "content", "body", "passage", "abstract"),
    "title": ("title", "name"),
    "url": ("url", "href", "link"),
    "date": ("date",),
    "image": ("image_sha256",),
}


class Columns(Struct, frozen=True, forbid_unknown_fields=True):
    """Which column holds what; "" where the usual names are tried (`text`, `contents`, `body`, ...).

    Args:
        id: names the document; its number, from 0, where there is no such column.
        text: must be there.
        title: shown above the text and searched with it.
        url: where it is from.
        date: as it stands there.
        image: SHA-256 of a picture in the media store.
        meta: further columns that hits carry along as `meta`.
        title_line: the first line of the text is the title, in quotes or not (as in Search-R1's corpora).
    """

    id: str = ""
    text: str = ""
    title: str = ""
    url: str = ""
    date: str = ""
    image: str = ""
    meta: tuple[str, ...] = ()
    title_line: bool = False

    @staticmethod
    def of(given: Columns | Mapping[str, Any] | None) -> Columns:
        """Checked columns out of plain data.

        Raises:
            ConfigError: an unknown field, or a value of the wrong type.
        """
        if isinstance(given, Columns):
            return given
        if not isinstance(given, (Mapping, NoneType)):
            raise ConfigError(f"columns={given!r:.60}: give a map, for instance {{'text': 'body'}}")
        try:
            return msgspec.convert(dict(given or {}), Columns)
        except msgspec.ValidationError as error:
            raise ConfigError(f"columns: {error}") from None

    def within(self, names: Iterable[str]) -> Columns:
        """The same with the columns that a first row has in place of guesses.

        What it lacks may still be in later rows, under the first of the usual names; but the id, which is there or not.

        Raises:
            UnknownNameError: a column that was named is not there.
            DataError: there is no column for the text.
        """
        known = list(names)
        for name in (self.id, self.text, self.title, self.url, self.date, self.image, *self.meta):
            if name and name not in known:
                raise UnknownNameError("column", name, known)
        found = {
            key: getattr(self, key)
            or next((guess for guess in guesses if guess in known), "" if key == "id" else guesses[0])
            for key, guesses in _GUESSES.items()
        }
        if found["text"] not in known:
            raise DataError(f"no column for the text; say columns={{'text': ...}}; there are {', '.join(known)}")
        return msgspec.structs.replace(self, **found)


class _Record(Struct, frozen=True, array_like=True, gc=False):
    id: str
    title: str
    text: str
    url: str
    date: str
    image: str
    meta: dict[str, Any]


# ---- reading sources -------------------------------------------------------------------------------------------------


def read_documents(source: Source, columns: Columns) -> Iterator[Hit]:
    """The documents of a source in order.

    Args:
        source: paths of JSONL (also gzipped) or Parquet files, rows, or a function that returns rows.
        columns: of the rows; rows that are `Hit`s stand for themselves.

    Raises:
        DataError: a row is malformed, or two documents have the same id; carries file and line.
        UnknownNameError: no such file or column.
    """
    seen: set[str] = set()
    number = 0
    for file, rows in rows_by_file(source):
        chosen: Columns | None = None
        for line, row in rows:
            try:
                if isinstance(row, Hit):
                    hit = row
                else:
                    chosen = chosen or columns.within(checked_row(row))
                    hit = document(row, chosen, number)
                if hit.id in seen:
                    raise DataError(f"a second document has the id {hit.id[:80]!r}")
            except DataError as error:
                raise DataError(error.why, file, line) from None
            seen.add(hit.id)
            number += 1
            yield hit


def rows_by_file(source: Source) -> Iterator[tuple[str, Iterable[tuple[int, Any]]]]:
    """Name and rows of each file, each with its line; "" for rows at hand."""
    files = files_of(source)
    if files is None:
        rows: Any = source() if callable(source) else source
        yield "", enumerate(rows, start=1)
        return
    for path in files:
        yield str(path), _rows_of_file(path)


def files_of(source: Source) -> list[Path] | None:
    """The files of a source, None where it is rows.

    Raises:
        UnknownNameError: a file is not there; names the nearest.
    """
    if isinstance(source, (str, Path)):
        found = [Path(source)]
    elif isinstance(source, (list, tuple)):
        found = [Path(item) for item in source if isinstance(item, (str, Path))]
        if not found or len(found) < len(source):
            return None
    else:
        return None
    for path in found:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder: give its files, for instance sorted(Path(FOLDER).glob('*.jsonl'))")
        if not path.is_file():
            siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UnknownNameError("file", path.name if siblings else str(path), siblings)
    return found


def _rows_of_file(path: Path) -> Iterator[tuple[int, Any]]:
    suffixes = path.suffixes[-2:]
    if path.suffix == ".parquet":
        return enumerate(_parquet(path), start=1)
    if ".jsonl" in suffixes or ".ndjson" in suffixes:
        return _jsonl(path)
    raise ConfigError(f"{path.name}: documents are read from .jsonl, .jsonl.gz and .parquet files")


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    decode = msgspec.json.Decoder().decode
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if line.strip():
                    try:
                        yield number, decode(line)
                    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                        raise DataError(f"not JSON in UTF-8: {error}", str(path), number) from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"not a readable gzip file: {error}", str(path)) from None


def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "reading Parquet files") from None
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # Arrow's errors are kinds of these
        raise DataError(f"not a readable Parquet file: {str(error).partition(chr(10))[0][:200]}", str(path)) from None


def checked_row(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise DataError(f"a document is an object with columns, not {type(row).__name__}")
    return row


def document(row: Any, columns: Columns, number: int) -> Hit:
    """The document of a row, which `Columns.within` has seen; `number` names it where no column does."""
    checked_row(row)
    text, title = _text(row, columns.text), _text(row, columns.title)
    if columns.title_line:
        first, _, text = text.partition("\n")
        title = first.strip().strip('"')
    name = _text(row, columns.id) if columns.id else str(number)
    if not name:
        raise DataError(f"no id in column {columns.id!r}, where other documents have one")
    return Hit(
        name,
        title,
        text,
        _text(row, columns.url),
        0.0,
        _text(row, columns.date),
        _text(row, columns.image),
        {name: row.get(name) for name in columns.meta},
    )


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column) if column else None
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        raise DataError(f"column {column!r} holds a {type(value).__name__} where text is expected")
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeError:
        raise DataError(f"column {column!r} holds bytes that are not UTF-8 where text is expected") from None


# ---- the store -------------------------------------------------------------------------------------------------------


def document_store(
    source: Source, columns: Columns, *, key: str = "", folder: Path | None = None, progress: Progress
) -> DocumentStore:
    """The store of a source, written if it is not there.

    Args:
        source: see `read_documents`.
        columns: likewise.
        key: names the content of rows that a function makes, so that it is not called where the store is there; must
            change whenever they do. By default the content itself is hashed.
        folder: of all stores and indices; `cache_folder("search")` by default.
        progress: told how it goes on.
    """
    if isinstance(source, Mapping) or not (callable(source) or isinstance(source, (Path, Iterable))):
        raise ConfigError(f"documents come from files, rows or a function that returns rows, not from {source!r:.60}")
    base = folder or cache_folder("search")
    files = files_of(source)
    if files is None and not key and not callable(source) and not isinstance(source, Sequence):
        source = list(source)  # type: ignore[arg-type]  # rows, to be read twice: to name them and to write them
    digest = canonical_hash([FORMAT, key or _content(source, files, columns), columns])[:32]

    def write(place: Path) -> None:
        write_documents(place, counted(read_documents(source, columns), "reading documents", None, progress))

    return DocumentStore(made_once(base / f"docs-{digest}", write), digest)


def _content(source: Source, files: Sequence[Path] | None, columns: Columns) -> Any:
    if files is not None:
        return [_file_hash(path) for path in files]
    digest = hashlib.sha256()
    encoder = msgspec.msgpack.Encoder()
    for hit in read_documents(source, columns):
        digest.update(encoder.encode(hit))
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_documents(folder: Path, documents: Iterable[Hit]) -> None:
    """Write a store into a folder."""
    import numpy as np

    encoder = msgspec.msgpack.Encoder()
    starts, ids, urls = [0], [], []
    with (folder / "docs.bin").open("wb") as file:
        for hit in documents:
            record = _Record(hit.id, hit.title, hit.text, hit.url, hit.date, hit.image, hit.meta)
            starts.append(starts[-1] + file.write(_encoded(encoder, record)))
            ids.append(_hash(hit.id))
            urls.append(_hash(hit.url) if hit.url else 0)
    np.asarray(starts, np.uint64).tofile(folder / "docs.idx")
    for name, hashes in (("ids.idx", ids), ("urls.idx", urls)):
        keys = np.asarray(hashes, np.uint64)
        order = np.argsort(keys, kind="stable").astype(np.uint64)
        np.concatenate([keys[order], order]).tofile(folder / name)


def _encoded(encoder: msgspec.msgpack.Encoder, record: _Record) -> bytes:
    try:
        return encoder.encode(record)
    except UnicodeEncodeError:  # a lone surrogate, which no UTF-8 holds
        texts = {name: getattr(record, name) for name in ("id", "title", "text", "url", "date", "image")}
        clean = {name: text.encode("utf-8", "replace").decode() for name, text in texts.items()}
        return encoder.encode(msgspec.structs.replace(record, **clean))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


class DocumentStore:
    """Documents on disk, by number, id or address. Read-only; shared by threads, forks and processes.

    Args:
        folder: what `document_store` wrote.
        version: hash of the content.
    """

    def __init__(self, folder: Path, version: str) -> None:
        import numpy as np

        self.folder, self.version = folder, version
        self._decode = msgspec.msgpack.Decoder(_Record).decode
        self._keys: dict[str, Any] = {}
        with whole(folder), (folder / "docs.bin").open("rb") as file:
            self._starts = np.fromfile(folder / "docs.idx", np.uint64)
            empty = len(self._starts) < 2
            self._bytes: mmap.mmap | bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if len(self._bytes) != int(self._starts[-1]):
                raise ValueError("documents are missing")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def hit(self, number: int, score: float = 0.0) -> Hit:
        """The document at a place, as a hit with a score.

        Raises:
            IndexError: there is no such place.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"no document {number}; there are {len(self)}")
        it = self._decode(self._bytes[int(self._starts[number]) : int(self._starts[number + 1])])
        return Hit(it.id, it.title, it.text, it.url, score, it.date, it.image, it.meta)

    def __iter__(self) -> Iterator[Hit]:
        return (self.hit(number) for number in range(len(self)))

    def get(self, id: str) -> Hit | None:
        """The document with an id, None where there is none."""
        return next((hit for hit in self._named("ids.idx", id) if hit.id == id), None)

    def at_url(self, url: str) -> Hit | None:
        """The first document with an address, None where there is none."""
        return next((hit for hit in self._named("urls.idx", url) if hit.url == url), None) if url else None

    def _named(self, name: str, text: str) -> Iterator[Hit]:
        import numpy as np

        if name not in self._keys:
            self._keys[name] = np.fromfile(self.folder / name, np.uint64).reshape(2, -1)
        keys, numbers = self._keys[name]
        key = np.uint64(_hash(text))
        for place in range(int(np.searchsorted(keys, key)), len(keys)):
            if keys[place] != key:
                return
            yield self.hit(int(numbers[place]))

    def close(self) -> None:
        """Unmap the file. Nothing can be read afterwards."""
        if isinstance(self._bytes, mmap.mmap):
            self._bytes.close()
