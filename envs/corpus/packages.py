"""Files that installed data packages carry, read without importing the package."""

from __future__ import annotations

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
