"""Fetching of public data sets, by torchvision and with their checksums."""

from __future__ import annotations

import os

from torchvision.datasets.utils import calculate_md5, download_and_extract_archive, download_url

from scripts.utils.errors import UserError


def fetch(url: str, file: str, md5: str) -> None:
    """Download a file.

    Args:
        url: where it is.
        file: where it goes; the folder is made where it is missing.
        md5: its checksum.

    Raises:
        UserError: where it cannot be had; says what to fetch by hand, and where to put it.
    """
    try:
        download_url(url, os.path.dirname(file), os.path.basename(file), md5)
    except (OSError, RuntimeError) as error:
        raise not_had(url, file, md5, error) from error


def fetch_archive(url: str, folder: str, md5: str) -> None:
    """Download an archive and unpack it in ``folder``; errors as of :func:`fetch`."""
    file = os.path.join(folder, os.path.basename(url))
    try:
        download_and_extract_archive(url, folder, folder, os.path.basename(file), md5)
    except (OSError, RuntimeError) as error:
        raise not_had(url, file, md5, error) from error


def intact(file: str, md5: str, url: str) -> None:
    """Refuse a file that is not the published one.

    Raises:
        UserError: names both checksums, and where to get the file.
    """
    found = calculate_md5(file)
    if found != md5:
        raise UserError(
            f"{file} has the MD5 {found}, not {md5}: get {url} again, or rename your own file and give its name"
        )


def not_had(url: str, file: str, md5: str, error: Exception) -> UserError:
    """Say in one line why a file is not to be had, and where to get it and put it."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"{url} is not to be had ({reason}): download it (--source#download true, or by other means; MD5 {md5}) to "
        f"{file}"
    )
