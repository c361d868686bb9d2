"""Addresses to listen on: which are this machine's alone, and why one is not to be had."""

from __future__ import annotations

import errno
import ipaddress

from scripts.utils.errors import UserError


def is_this_machine(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cannot_listen(host: str, port: int, error: OSError, key: str = "port") -> UserError:
    """Say in one line why nothing can listen there; the key names the port in the config."""
    if error.errno == errno.EADDRINUSE:
        return UserError(f"port {port} of {host} is in use: stop what listens there, or give another one (key '{key}')")
    if error.errno == errno.EACCES:
        return UserError(f"port {port} of {host} is not to be had: give one above 1023 (key '{key}')")
    return UserError(f"cannot listen on {host}, port {port} ({error.strerror or error}): mend keys 'host' and '{key}'")
