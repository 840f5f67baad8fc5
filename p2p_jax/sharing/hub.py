"""The Hugging Face hub, or what speaks as it does at ``HF_ENDPOINT``: model files are fetched from it and put on it.

A token goes to the hub in the header of requests and nowhere else: what the hub answers is not repeated in errors,
which may hold it.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from p2p_jax.errors import InputError

FILENAME = "model.safetensors"
"""The name of the model file in a repository."""
_Found = TypeVar("_Found")
_CLIENTS = re.compile("http|requests|urllib3")
"""Modules that huggingface_hub speaks through, by version."""
_LOGIN = "log in with hf auth login, or set the environment variable HF_TOKEN"


def fetch(name: str, revision: str | None = None, filename: str = FILENAME, token: str | None = None) -> Path:
    """Return a file of a repository, fetched where it is not in the cache of ``huggingface_hub`` yet.

    Args:
      name: of the repository, "user/name".
      revision: a branch, a tag or the hash of a commit; the newest of the main branch by default.
      filename: of the file in it.
      token: of the hub; by default that of this machine's login, if any.

    Raises:
      InputError: there is no such repository or file, it may not be read, or the hub cannot be reached.
    """
    hub = import_hub()

    def download() -> Path:
        api = hub.HfApi(token=token)
        address = hub.hf_hub_url(name, filename, revision=revision, endpoint=api.endpoint)
        try:
            api.get_hf_file_metadata(url=address)
        except Exception as error:
            if not _is_of_the_line(error):
                raise
            # A download would try for half a minute, with a message each time.
            return Path(api.hf_hub_download(name, filename, revision=revision, local_files_only=True))
        return Path(api.hf_hub_download(name, filename, revision=revision))

    return _telling(download, hub, name, "read", revision=revision, filename=filename)


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

    def put() -> str:
        api = hub.HfApi(token=token)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they repeat what the hub says
            address = api.create_repo(name, private=private or None, exist_ok=True)
            if private and not api.repo_info(name).private:
                raise InputError(
                    f"{name} already exists and is public: choose another name, make it private on its "
                    "page, or leave `private` out; nothing was written"
                )
            operations = [
                hub.CommitOperationAdd(path_in_repo=place, path_or_fileobj=str(x) if isinstance(x, Path) else x)
                for place, x in files.items()
            ]
            api.create_commit(name, operations, commit_message=message)
        return str(address)

    return _telling(put, hub, name, "write")


def check_name(name: str) -> str:
    """Return the name of a repository, if it has the form "user/name".

    Raises:
      InputError: it has not.
    """
    parts = name.split("/")
    if len(parts) != 2 or not all(part and part.strip("._-") for part in parts):
        raise InputError(f"{name!r} is not a repository name: write it as user/name")
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


def _telling(
    call: Callable[[], _Found],
    hub: ModuleType,
    name: str,
    doing: str,
    revision: str | None = None,
    filename: str = FILENAME,
) -> _Found:
    """Return what a call of the hub does, or say in one sentence what keeps it from that.

    What is raised does not hold the error that was met, as its cause or its context: its text may repeat what was sent.
    """
    from huggingface_hub import errors

    check_name(name)
    place = _place(hub)
    try:
        return call()
    except InputError:
        raise
    except errors.HFValidationError:
        found = f"{name!r} is not a valid repository name: use user/name, with letters, digits, - _ and ."
    except errors.GatedRepoError:
        found = f"{name} on {place} is gated: ask for access on its page, then {_LOGIN}"
    except errors.RevisionNotFoundError:
        found = f"{name} on {place} has no revision {revision}"
    except errors.LocalEntryNotFoundError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, errors.HfHubHTTPError):
            found = _answered(cause, name, place, doing)
        else:
            found = _unreachable(name, place, doing)
    except errors.EntryNotFoundError:
        found = f"{name} on {place} has no file {filename}: it is not a p2p_jax model, or needs another `filename`"
    except errors.HfHubHTTPError as error:
        found = _answered(error, name, place, doing)
    except errors.OfflineModeIsEnabled:
        found = f"{_unreachable(name, place, doing)} (HF_HUB_OFFLINE is set)"
    except Exception as error:  # of any kind, as what an upload meets is wrapped, with the answer in its text
        cause = error.__cause__ or error
        if isinstance(cause, errors.HfHubHTTPError):
            found = _answered(cause, name, place, doing)
        elif _is_of_the_line(cause):
            found = _unreachable(name, place, doing)
        else:
            found = f"{name} on {place} cannot be {'read' if doing == 'read' else 'written'} ({type(cause).__name__})"
    raise InputError(found)


def _is_of_the_line(error: BaseException) -> bool:
    """Return whether an error means that there was no answer."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return False
    return isinstance(error, ConnectionError | TimeoutError) or _CLIENTS.match(type(error).__module__) is not None


def _answered(error: Any, name: str, place: str, doing: str) -> str:
    """Say what the hub has answered, by only the number."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 404) and doing == "read":
        return f"there is no repository {name} on {place}, or it is private: to read it, {_LOGIN}"
    if status == 401:
        return f"{place} does not know you, so nothing was written: {_LOGIN}, with a token that may write"
    if status == 403:
        return f"{place} does not let you {doing} {name}: use a token of its owner that may {doing}"
    if status == 404:
        return f"{place} cannot create {name}: does the user or organisation exist, and may your token write there?"
    return (
        f"{place} answered {status or 'with an error'} when {name} was to be {'read' if doing == 'read' else 'written'}"
    )


def _unreachable(name: str, place: str, doing: str) -> str:
    rest = f"{name} was not fetched before" if doing == "read" else "nothing was written"
    return f"{place} cannot be reached, and {rest}: is this machine online?"


def _place(hub: ModuleType) -> str:
    """Return the hub's address, without what may be secret in it."""
    parts = urlsplit(hub.HfApi().endpoint)
    return f"{parts.hostname or 'the hub'}{f':{parts.port}' if parts.port else ''}"
