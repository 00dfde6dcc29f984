"""Commands of who keeps the API's box: access keys, encryption keys, packaged models.

A part of the command line (main.py), by its rules.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.cli.output import print_report
from edged.core.errors import InvalidInput

if TYPE_CHECKING:
    from edged.runtime.state import StateFolder
    from edged.store.keyring import Keyring


def add_commands(commands: Any) -> None:
    """Add them to the subparsers of the command line."""
    _add_credentials(commands)
    _add_keyring(commands)
    bring = commands.add_parser("import", help="install a packaged model on this box")
    bring.add_argument("bundle", type=Path)
    bring.add_argument("--output", type=Path, required=True, metavar="MODEL")
    signer = bring.add_mutually_exclusive_group(required=True)
    signer.add_argument("--key", metavar="KEY", help="of the box that packaged it; see signing-key")
    signer.add_argument("--any-key", action="store_true", help="whoever packaged it")
    bring.add_argument("--json", action="store_true")
    bring.set_defaults(command=_import)
    key = commands.add_parser("signing-key", help="the key that other boxes know this one by")
    key.add_argument("--config", type=Path, required=True, metavar="F")
    key.set_defaults(command=_signing_key)


def _deeds(commands: Any, name: str, words: str, deeds: str) -> Any:
    """A command on one of the daemon's files, and the subparsers of what it does."""
    command = commands.add_parser(name, help=words)
    command.add_argument("--config", type=Path, required=True, metavar="F")
    command.add_argument("--json", action="store_true")
    return command.add_subparsers(required=True, metavar=deeds)


def _add_credentials(commands: Any) -> None:
    deeds = _deeds(commands, "credentials", "access keys of the API", "create | list | revoke")
    create = deeds.add_parser("create", help="make a key; its secret is shown once")
    create.add_argument(
        "--action",
        action="append",
        metavar="PATTERN",
        help="as lookoutvision:Detect*; may be repeated (default: all)",
    )
    create.add_argument(
        "--region",
        action="append",
        metavar="PATTERN",
        help="as us-east-1 or eu-*; may be repeated (default: all)",
    )
    create.add_argument("--account", default="123456789012", help="12 digits")
    create.add_argument("--hours", type=float, help="a session with a token, for so long")
    create.add_argument("--note", default="", help="who has it")
    create.set_defaults(command=_credentials, deed="create")
    show = deeds.add_parser("list", help="all keys, without their secrets")
    show.set_defaults(command=_credentials, deed="list")
    revoke = deeds.add_parser("revoke", help="make a key useless from now on")
    revoke.add_argument("key_id")
    revoke.set_defaults(command=_credentials, deed="revoke")


def _credentials(arguments: argparse.Namespace) -> int:
    from datetime import timedelta

    from edged.store.credentials import Credentials

    keys = Credentials(_state(arguments).credentials)
    if arguments.deed == "revoke":
        keys.revoke(arguments.key_id)
        print_report({"revoked": arguments.key_id}, arguments.json)
        return 0
    if arguments.deed == "list":
        shown = [
            {"key_id": k.key_id, "account": k.account, "actions": list(k.actions),
             "regions": list(k.regions), "expires": k.expires, "note": k.note}
            for k in keys.all()
        ]  # fmt: skip
        print_report({"keys": shown}, arguments.json)
        return 0
    if arguments.hours is not None and not 0 < arguments.hours <= 24 * 366:
        raise InvalidInput(f"hours {arguments.hours}: give a number above 0, up to {24 * 366}.")
    made = keys.create(
        arguments.action or ["lookoutvision:*"],
        arguments.region or ["*"],
        arguments.account,
        timedelta(hours=arguments.hours) if arguments.hours else None,
        arguments.note,
    )
    shown_once = {"key_id": made.key_id, "secret": made.secret, "session_token": made.token}
    print_report(shown_once, arguments.json)
    return 0


def _add_keyring(commands: Any) -> None:
    words = "keys that encrypt models (KmsKeyId)"
    deeds = _deeds(commands, "keyring", words, "create | list | remove")
    create = deeds.add_parser("create", help="make a key")
    create.add_argument(
        "--id", metavar="KMSKEYID", help="what clients call it, as an ARN (default: a UUID)"
    )
    create.set_defaults(command=_keyring_create)
    show = deeds.add_parser("list", help="all keys by name")
    show.set_defaults(command=_keyring_list)
    remove = deeds.add_parser(
        "remove", help="destroy a key; models that it encrypts can never be opened again"
    )
    remove.add_argument("id")
    remove.set_defaults(command=_keyring_remove)


def _keyring(arguments: argparse.Namespace) -> Keyring:
    from edged.store.keyring import Keyring

    return Keyring(_state(arguments).keyring)


def _keyring_create(arguments: argparse.Namespace) -> int:
    made = _keyring(arguments).create(arguments.id)
    print_report({"kms_key_id": made.id}, arguments.json)
    return 0


def _keyring_list(arguments: argparse.Namespace) -> int:
    keys = [{"kms_key_id": k.id, "created": k.created} for k in _keyring(arguments).all()]
    print_report({"keys": keys}, arguments.json)
    return 0


def _keyring_remove(arguments: argparse.Namespace) -> int:
    _keyring(arguments).remove(arguments.id)
    print_report({"removed": arguments.id}, arguments.json)
    return 0


def _state(arguments: argparse.Namespace) -> StateFolder:
    from edged.config.load import load

    state = load(arguments.config).state
    state.path.mkdir(parents=True, exist_ok=True, mode=0o750)
    return state


def _import(arguments: argparse.Namespace) -> int:
    from edged.store import bundle
    from edged.wire.spec import read_spec

    trusted = None if arguments.any_key else arguments.key
    found = bundle.install(arguments.bundle, arguments.output, trusted, read_spec)
    print_report(found, arguments.json)
    return 0


def _signing_key(arguments: argparse.Namespace) -> int:
    from edged.store import bundle

    print(bundle.public_text(bundle.signing_key(_state(arguments).signing_key)))
    return 0
