"""Files that installed data packages carry, read without importing the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from agentenv.errors import MissingExtraError, UsageError

EXTRA = "search"


def version_of(package: str) -> str:
    """The installed version of a package, "" where it is not installed."""
    try:
        return distribution(package).version
    except PackageNotFoundError:
        return ""


@lru_cache(maxsize=16)
def package_file(package: str, file: str, feature: str) -> Path:
    """A file of an installed package.

    Args:
        package: name on the package index.
        file: its path within the installation.
        feature: what it is needed for, said in the error.

    Raises:
        MissingExtraError: the package is not installed.
        UsageError: its version does not hold the file.
    """
    try:
        dist = distribution(package)
    except PackageNotFoundError:
        raise MissingExtraError(package, EXTRA, feature) from None
    found = Path(str(dist.locate_file(file)))
    if not found.is_file():
        raise UsageError(f"{package} {dist.version} does not hold {file}")
    return found


def kinds_at_hand(kinds: Sequence[str], needs: Mapping[str, str], *, named: bool) -> tuple[str, ...]:
    """The kinds of question whose data package is installed.

    Args:
        kinds: those that are wanted.
        needs: packages that may be missing, by the kind that needs one.
        named: the kinds were asked for by their names, so that none may be left out.

    Raises:
        MissingExtraError: a kind that was named needs a package that is not installed.
    """
    missing = [kind for kind in kinds if kind in needs and not version_of(needs[kind])]
    if named and missing:
        raise MissingExtraError(needs[missing[0]], "", f"the kind of question {missing[0]!r}")
    return tuple(kind for kind in kinds if kind not in missing)
