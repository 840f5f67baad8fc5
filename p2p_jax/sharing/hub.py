"""The Hugging Face hub, or what speaks as it does at ``HF_ENDPOINT``: model files are fetched from it and put on it.

A token goes to the hub in the header of requests and nowhere else: what the hub answers is not repeated in errors,
which may hold it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from p2p_jax.errors import InputError

FILENAME = "model.safetensors"
"""What the model file of a repository is called."""
_LOGIN = "log in with hf auth login, or set the environment variable HF_TOKEN"


def fetch(name: str, revision: str | None = None, filename: str = FILENAME, token: str | None = None) -> Path:
    """Return a file of a repository, fetched where it is not in the cache of ``huggingface_hub`` yet.

    Args:
      name: of the repository, "user/name".
      revision: a branch, a tag or the hash of a commit; the newest of the main branch by default.
      filename: of the file in it.
      token: of the hub; by default the one with which this machine is logged in, if it is.

    Raises:
      InputError: there is no such repository or file, it may not be read, or the hub cannot be reached.
    """
    hub = import_hub()
    with _told(hub, name, "read", revision=revision, filename=filename):
        return Path(hub.HfApi(token=token).hf_hub_download(name, filename, revision=revision))


def upload(
    name: str, files: Mapping[str, Path | bytes], message: str, *, private: bool = False, token: str | None = None
) -> str:
    """Put files into a repository, in one commit; it is made where there is none.

    Args:
      name: of the repository, "user/name".
      files: by their names in it; those that are there are replaced, others stay.
      message: of the commit.
      private: only for those who may read it, if it is made now.
      token: see ``fetch``.

    Returns:
      The address of the repository.

    Raises:
      InputError: it may not be written, or the hub cannot be reached.
    """
    hub = import_hub()
    with _told(hub, name, "write"):
        api = hub.HfApi(token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(path_in_repo=place, path_or_fileobj=str(x) if isinstance(x, Path) else x)
            for place, x in files.items()
        ]
        api.create_commit(name, operations, commit_message=message)
    return str(address)


def check_name(name: str) -> str:
    """Return the name of a repository, if it has the form "user/name".

    Raises:
      InputError: it has not.
    """
    parts = name.split("/")
    if len(parts) != 2 or not all(part and part.strip("._-") for part in parts):
        raise InputError(f"{name!r} is not the name of a repository on the hub: write it as user/name")
    return name


def import_hub() -> ModuleType:
    """Return ``huggingface_hub``.

    Raises:
      InputError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError("the hub needs huggingface_hub: pip install 'p2p_jax[hub]'") from error
    return huggingface_hub


@contextlib.contextmanager
def _told(
    hub: ModuleType, name: str, doing: str, revision: str | None = None, filename: str = FILENAME
) -> Iterator[None]:
    """Say in one sentence what keeps a repository from being read or written.

    What is raised does not hold the error that was met: its text may repeat what was sent.
    """
    import httpx
    from huggingface_hub import errors

    check_name(name)
    place = _place(hub)
    try:
        yield
        return
    except errors.HFValidationError:
        found = f"{name!r} is not a name that repositories on the hub have: user/name, of letters, digits, - _ and ."
    except errors.GatedRepoError:
        found = f"{name} on {place} is given out on request alone: ask on its page there, then {_LOGIN}"
    except errors.RevisionNotFoundError:
        found = f"{name} on {place} has no revision {revision}"
    except errors.LocalEntryNotFoundError as error:
        cause = error.__cause__ or error.__context__
        found = _answered(cause, name, place, doing) if isinstance(cause, errors.HfHubHTTPError) else None
        found = found or _unreachable(name, place, doing)
    except errors.EntryNotFoundError:
        found = f"{name} on {place} has no file {filename}: it holds no model of p2p_jax, or under another `filename`"
    except errors.HfHubHTTPError as error:
        found = _answered(error, name, place, doing)
    except errors.OfflineModeIsEnabled:
        found = f"{_unreachable(name, place, doing)} (HF_HUB_OFFLINE is set)"
    except (httpx.HTTPError, ConnectionError, TimeoutError):
        found = _unreachable(name, place, doing)
    except (ValueError, RuntimeError, OSError) as error:  # what an upload met, with the answer in it
        cause = error.__cause__ or error
        if isinstance(cause, errors.HfHubHTTPError):
            found = _answered(cause, name, place, doing)
        elif isinstance(cause, httpx.HTTPError | ConnectionError | TimeoutError):
            found = _unreachable(name, place, doing)
        else:
            found = f"{name} on {place} cannot be {'read' if doing == 'read' else 'written'} ({type(cause).__name__})"
    raise InputError(found)


def _answered(error: Any, name: str, place: str, doing: str) -> str:
    """Say what the hub has answered, by the number alone."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 404) and doing == "read":
        return f"there is no repository {name} on {place}, or it is private: {_LOGIN} to read what is"
    if status == 401:
        return f"{place} does not know who you are, and so nothing was written: {_LOGIN}, with a token that may write"
    if status == 403:
        return f"{place} does not let you {doing} {name}: it wants a token of its owner, which may {doing}"
    if status == 404:
        return f"{place} has no place for {name}: is there such a user or organisation, and may your token write there?"
    return (
        f"{place} answered {status or 'with an error'} when {name} was to be {'read' if doing == 'read' else 'written'}"
    )


def _unreachable(name: str, place: str, doing: str) -> str:
    rest = f"{name} was not fetched before" if doing == "read" else "nothing was written"
    return f"{place} cannot be reached, and {rest}: is this machine online?"


def _place(hub: ModuleType) -> str:
    """Return the hub's address, without what may be secret in it."""
    parts = urlsplit(hub.constants.ENDPOINT)
    return f"{parts.hostname or 'the hub'}{f':{parts.port}' if parts.port else ''}"
