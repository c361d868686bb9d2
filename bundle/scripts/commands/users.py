"""Say who may use the labelling service: ``dynammo users FILE add NAME --role labeller``.

The password is asked for, or read from the standard input where that is no terminal.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from scripts.commands.terminal import end
from scripts.deploy.service.users import Role, Users
from scripts.utils.errors import UserError


def password_of(name: str) -> str:
    """Ask for a new password, twice at a terminal.

    Raises:
        UserError: the two differ.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass(f"Password of {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise UserError("the two passwords differ: nothing was changed")
    return password


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = _parser().parse_args(arguments)
    users = Users(given.file)

    def work() -> str:
        match given.action:
            case "add":
                users.add(given.name, Role(given.role), None if given.proxy else password_of(given.name))
                return f"{given.name} is {given.role} now."
            case "remove":
                users.remove(given.name)
                return f"{given.name} is out."
        return tabulate([[user.name, user.role] for user in users.all()], headers=["name", "role"])

    return end(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dynammo users", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", type=Path, help="the users; made with the first of them, for its owner's eyes")
    actions = parser.add_subparsers(dest="action", required=True)
    adding = actions.add_parser("add", help="add a user, or give one another role and password")
    adding.add_argument("name")
    adding.add_argument("--role", choices=[*Role], default=Role.READER)
    adding.add_argument("--proxy", action="store_true", help="without a password: a trusted proxy says who it is")
    actions.add_parser("remove", help="take a user out").add_argument("name")
    actions.add_parser("list", help="print all users")
    return parser


if __name__ == "__main__":
    sys.exit(main())
