"""What a format is, what an export reports, and how files are written.

A file is written whole or not at all, and the same episodes and options give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field

from agentenv.errors import MissingExtraError, UnknownNameError, UsageError
from agentenv.trajectories.formats.beside import Beside
from agentenv.trajectories.journal import storing
from agentenv.trajectories.manifest import replace_file

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run

_LOG = logging.getLogger("agentenv")
_BATCH = 1000
_ENDINGS = (".jsonl", ".parquet")

Row = dict[str, Any]
Kind = Literal["string", "int", "float", "bool", "json", "json_list", "strings", "images", "ints", "floats"]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that every format has.

    Args:
        container: the kind of file.
        name: its name, without the ending.
        on_loss: what happens when an episode holds something that the format cannot carry: it is noted in the report,
            the log is warned too, or the export fails and writes nothing.
        allow_loss: fields whose loss is fine under "fail".
    """

    container: Literal["jsonl", "parquet"] = "jsonl"
    name: str = "train"
    on_loss: Literal["note", "warn", "fail"] = "warn"
    allow_loss: tuple[str, ...] = ()


class Tally:
    """What an export leaves out or changes, counted by episode, and the files that it writes beside its data file."""

    def __init__(self, folder: Path) -> None:
        self.beside = Beside(folder)
        self.skipped: list[tuple[str, str]] = []
        self.dropped: Counter[str] = Counter()
        self.merged: Counter[str] = Counter()

    def skip(self, id: str, reason: str) -> None:
        """An episode is left out."""
        self.skipped.append((id, reason))

    def drop(self, fields: Iterable[str]) -> None:
        """Of an episode, these fields are left out."""
        self.dropped.update(set(fields))

    def merge(self, kinds: Iterable[str]) -> None:
        """In an episode, these things were joined or moved."""
        self.merged.update(set(kinds))


class Format(Struct, frozen=True):
    """A format to export to.

    Args:
        name: what it is called.
        about: what it is for, in one line.
        options: type of its options.
        columns: its columns and their kinds.
        drops: what it cannot carry, with the reason; the names are those of `ExportReport.dropped`.
        rows: makes the rows, one at a time.
        fitted: the format as it is for this run, where its columns depend on what the episodes hold.
    """

    name: str
    about: str
    options: type[Options]
    columns: dict[str, Kind]
    drops: dict[str, str]
    rows: Callable[[Run, Any, Tally], Iterator[Row]]
    fitted: Callable[[Run, Any], Format] | None = None


class ExportReport(Struct):
    """What an export wrote, and what it did not.

    Args:
        format: its name.
        written: rows.
        skipped: id and reason of each episode that was left out.
        dropped: fields that the format cannot carry, with the number of episodes that had them.
        merged: things that were joined or moved to fit the format, with the number of episodes.
        files: the data files.
        sha256: of the data files' bytes: equal for equal episodes, options and version.
        media: pictures and videos that lie beside the data files.
    """

    format: str
    written: int
    skipped: list[tuple[str, str]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    merged: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    sha256: str = ""
    media: int = 0

    def __str__(self) -> str:
        lines = [f"{self.format}: {self.written} written to {', '.join(self.files)}"]
        if self.media:
            lines[0] += f", with {self.media} pictures beside it"
        reasons = Counter(reason for _, reason in self.skipped)
        lines += [f"  skipped {count}: {reason}" for reason, count in sorted(reasons.items())]
        lines += [f"  dropped {name} of {count} episodes" for name, count in sorted(self.dropped.items())]
        lines += [f"  changed in {count} episodes: {name}" for name, count in sorted(self.merged.items())]
        return "\n".join(lines)


def read_options(format: Format, given: dict[str, Any]) -> Options:
    """The options of a format, checked.

    Raises:
        UnknownNameError: the format has no such option.
        UsageError: an option has a value that it cannot have.
    """
    known = format.options.__struct_fields__
    for name in given:
        if name not in known:
            raise UnknownNameError(f"option of format {format.name}", name, known)
    try:
        options = msgspec.convert(given, format.options)
    except msgspec.ValidationError as error:
        raise UsageError(f"format {format.name}: {error}") from None
    unknown = [name for name in options.allow_loss if name not in format.drops]
    if unknown:
        raise UnknownNameError(f"field that {format.name} drops", unknown[0], format.drops)
    if not options.name or Path(options.name).name != options.name or options.name.startswith("."):
        raise UsageError(f"format {format.name}: {options.name!r} cannot be the name of a file")
    return options


def write(run: Run, format: Format, out: Path, given: dict[str, Any]) -> ExportReport:
    """Export a run; see `agentenv.trajectories.formats.export`."""
    options = read_options(format, given)
    _check_folder(out, format)
    if format.fitted is not None:
        format = format.fitted(run, options)
    tally = Tally(out)
    path = out / f"{options.name}.{options.container}"
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
        temporary = out / f".{path.name}.partial"
        try:
            written = _FILES[options.container](temporary, format, format.rows(run, options, tally))
            _judge_losses(format, options, tally)
            digest = _sha256(temporary)
            temporary.replace(path)
        except BaseException:
            tally.beside.undo()
            raise
        finally:
            temporary.unlink(missing_ok=True)
        if not any(other.suffix in _ENDINGS and other != path for other in out.iterdir()):
            tally.beside.prune()
        report = ExportReport(
            format.name, written, tally.skipped, _sorted(tally.dropped), _sorted(tally.merged), [str(path)], digest,
            tally.beside.count,
        )  # fmt: skip
        replace_file(out / "README.md", _card(format, path, report).encode())
        replace_file(out / "manifest.json", _manifest(run, format, options, report, path))
    return report


def _check_folder(out: Path, format: Format) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; an export needs a folder")
    try:
        maker = json.loads((out / "manifest.json").read_bytes()).get("format")
    except (OSError, ValueError, AttributeError):
        maker = None
    with storing(out):
        foreign = any(not path.name.startswith(".") for path in out.iterdir())
    if foreign and maker != format.name:
        raise UsageError(f"{out} is not empty and holds no {format.name} export; choose a new or an empty folder")


def _judge_losses(format: Format, options: Options, tally: Tally) -> None:
    lost = {name: count for name, count in sorted(tally.dropped.items()) if name not in options.allow_loss}
    if not lost or options.on_loss == "note":
        return
    text = "; ".join(f"{name} of {count} episodes ({format.drops[name]})" for name, count in lost.items())
    if options.on_loss == "fail":
        raise UsageError(f"{format.name} would drop {text}; allow it with allow_loss")
    _LOG.warning("%s drops %s", format.name, text)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _jsonl(path: Path, format: Format, rows: Iterator[Row]) -> int:
    encoder, written = msgspec.json.Encoder(), 0
    with path.open("wb") as file:
        for row in rows:
            file.write(encoder.encode(row) + b"\n")
            written += 1
    return written


def _parquet(path: Path, format: Format, rows: Iterator[Row]) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "the container parquet") from None
    if not hasattr(pa, "json_"):
        raise UsageError("the container parquet needs pyarrow 19 or newer, which has a JSON type; or take jsonl")
    types = _arrow_types(pa)
    features = {"info": {"features": {name: _FEATURES[kind] for name, kind in format.columns.items()}}}
    schema = pa.schema(
        [(name, types[kind]) for name, kind in format.columns.items()], {"huggingface": json.dumps(features)}
    )
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for batch in _batches(rows):
            arrays = [_array(pa, [row.get(name) for row in batch], kind) for name, kind in format.columns.items()]
            file.write_table(pa.Table.from_arrays(arrays, schema=schema))
            written += len(batch)
    return written


def _arrow_types(pa: Any) -> dict[str, Any]:
    scalar = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    file = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    lists = {"json_list": pa.list_(pa.json_()), "strings": pa.list_(pa.string()), "images": pa.list_(file)}
    numbers = {"ints": pa.list_(pa.int64()), "floats": pa.list_(pa.float32())}
    return {**scalar, "json": pa.json_(), **lists, **numbers}


def _array(pa: Any, values: list[Any], kind: Kind) -> Any:
    # Dictionaries go in as JSON text: Arrow would give all of them the keys of all, with null where there was nothing.
    types = _arrow_types(pa)
    if kind == "json":
        texts = [None if value is None else msgspec.json.encode(value).decode() for value in values]
        return pa.array(texts, pa.string()).cast(types[kind])
    if kind == "json_list":
        lists = [[msgspec.json.encode(item).decode() for item in value or ()] for value in values]
        return pa.array(lists, pa.list_(pa.string())).cast(types[kind])
    return pa.array(values, types[kind])


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


_FILES: dict[str, Callable[[Path, Format, Iterator[Row]], int]] = {"jsonl": _jsonl, "parquet": _parquet}
_FEATURES: dict[Kind, dict[str, Any]] = {
    "string": {"dtype": "string", "_type": "Value"},
    "int": {"dtype": "int64", "_type": "Value"},
    "float": {"dtype": "float64", "_type": "Value"},
    "bool": {"dtype": "bool", "_type": "Value"},
    "json": {"_type": "Json"},
    "json_list": {"feature": {"_type": "Json"}, "_type": "List"},
    "strings": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "ints": {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"},
    "floats": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"},
}
_CARD_TYPES: dict[Kind, str] = {
    "string": "dtype: string",
    "int": "dtype: int64",
    "float": "dtype: float64",
    "bool": "dtype: bool",
    "json": "dtype: json",
    "json_list": "list: json",
    "strings": "list: string",
    "images": "list: image",
    "ints": "list: int64",
    "floats": "list: float32",
}


def _card(format: Format, path: Path, report: ExportReport) -> str:
    """A dataset card. Its header tells `datasets` which columns hold free-form JSON, so that no nulls are filled in."""
    features = "".join(f"  - name: {name}\n    {_CARD_TYPES[kind]}\n" for name, kind in format.columns.items())
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {json.dumps(path.name)}\n"
        f"dataset_info:\n  features:\n{features}---\n\n"
        f"# {format.name}\n\n{format.about}\n\n"
        "Exported by agentenv; manifest.json says from what, and what was left out."
        '\nLoad it by its folder: `datasets.load_dataset("FOLDER", split="train")` (datasets 4.7 or newer).\n'
        + (_SEEING if "images" in format.columns else "")
        + (_BESIDE if report.media and "image_root" in format.options.__struct_fields__ else "")
    )


_SEEING = """
Train with `max_length=None`: TRL would cut off text and not the pixels that belong to it.
"""

_BESIDE = """
The rows name pictures by their paths from this folder: let the trainer run in it (`cd FOLDER`), or say where it will be
when you export (`image_root="/data/sft"`). Where the format has the option, `images="uri"` puts them into the rows.
"""


def _manifest(run: Run, format: Format, options: Options, report: ExportReport, path: Path) -> bytes:
    from agentenv.trajectories.manifest import version

    ids = hashlib.sha256("\n".join(run.column("id")).encode()).hexdigest()
    content = {
        "format": format.name,
        "agentenv": version(),
        "options": options,
        "source": {"episodes": len(run), "ids_sha256": ids},
        "written": report.written,
        "skipped": report.skipped,
        "dropped": report.dropped,
        "drops": format.drops,
        "merged": report.merged,
        "media": report.media,
        "files": [{"name": path.name, "bytes": path.stat().st_size, "sha256": report.sha256}],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
