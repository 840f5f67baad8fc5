"""A hub on the loopback address: the few calls that huggingface_hub makes for a model, answered as they are."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TOKEN = "hf_thisIsASecretThatNobodyMayRead"


class Repository:
    """What lies in one repository: the files of each commit, the newest last."""

    def __init__(self, private: bool):
        self.private = private
        self.commits: list[tuple[str, dict[str, bytes]]] = [("0" * 40, {})]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit, by its hash or as main."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)

    def add(self, files: dict[str, bytes]) -> str:
        """Commit files over those that are there; return the hash."""
        number = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits.append((number, self.commits[-1][1] | files))
        return number


class Request(NamedTuple):
    """What was asked of the hub: `host` is its own address, or that of its store of large files."""

    method: str
    path: str
    host: str
    authorization: str | None
    body: bytes


class Hub:
    """The state of a hub.

    Attributes:
      repositories: by "user/name".
      requests: all that were asked, in order.
      answer: a status with which every request is answered, with all its headers in the text; None: as it should be.
      writers: users in whose name the token writes.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.answer: int | None = None
        self.writers = {"user"}
        self.port = 0

    @property
    def endpoint(self) -> str:
        """The address that HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> str:
        """Another host, at which large files lie."""
        return f"http://localhost:{self.port}"


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """Run a hub."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pretend(monkeypatch: Any, hub: Hub, cache: Path) -> None:
    """Let huggingface_hub take a hub for the real one, as HF_ENDPOINT does where it is imported, with a new cache.

    Files go over HTTP, as they do without hf_xet, whose protocol is between programs of its own.
    """
    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "no_token"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        host = str(self.headers.get("Host")).partition(":")[0]
        self.hub.requests.append(Request(self.command, self.path, host, self.headers.get("Authorization"), body))
        if self.hub.answer is not None:
            text = f"no: {dict(self.headers.items())}"
            self._send(self.hub.answer, {"error": text}, {"X-Error-Message": text.replace("\n", " ")})
            return
        parts = urlsplit(self.path).path.strip("/").split("/")
        match (self.command, parts):
            case ("PUT", ["store", oid]):
                self._put(oid, body)
            case ("GET" | "HEAD", ["store", oid]):
                self._bytes(self.hub.objects[oid])
            case ("POST", ["api", "validate-yaml"]):
                self._validate(json.loads(body)["content"])
            case ("POST", ["api", "repos", "create"]):
                self._create(json.loads(body))
            case ("GET", ["api", "models", user, name]):
                self._info(f"{user}/{name}")
            case ("POST", ["api", "models", user, name, "preupload", "main"]):
                self._preupload(f"{user}/{name}", json.loads(body)["files"])
            case ("POST", [user, name, "info", "lfs", "objects", "batch"]) if name.endswith(".git"):
                self._batch(f"{user}/{name.removesuffix('.git')}", json.loads(body)["objects"])
            case ("POST", ["api", "models", user, name, "commit", "main"]):
                self._commit(f"{user}/{name}", [json.loads(line) for line in body.splitlines()])
            case ("GET" | "HEAD", [user, name, "resolve", revision, *path]):
                self._resolve(f"{user}/{name}", revision, "/".join(path))
            case _:
                self._send(404, {"error": "no such call"})

    def _chunks(self) -> bytes:
        found = b""
        while length := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return found

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._bytes(json.dumps(content).encode(), status, headers)

    def _bytes(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _may_write(self, repository: str) -> bool:
        if not self._known:
            self._send(401, {"error": "Invalid username or password."})
        elif repository.partition("/")[0] not in self.hub.writers:
            self._send(403, {"error": "You don't have the rights."})
        elif repository not in self.hub.repositories:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        else:
            return True
        return False

    def _put(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._send(400, {"error": "other bytes"})
            return
        self.hub.objects[oid] = body
        self._send(200, {})

    def _validate(self, content: str) -> None:
        head = content.split("---")[1] if content.startswith("---\n") else ""
        if "license:" not in head:
            self._send(400, {"errors": [{"message": "license is missing"}], "warnings": []})
            return
        self._send(200, {"errors": [], "warnings": []})

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        if not self._known:
            self._send(401, {"error": "Invalid username or password."})
        elif asked["organization"] not in self.hub.writers:
            self._send(403, {"error": "You don't have the rights."})
        elif repository in self.hub.repositories:
            self._send(
                409, {"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{repository}"}
            )
        else:
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.hub.repositories[repository] = Repository(private)
            self._send(200, {"url": f"{self.hub.endpoint}/{repository}", "id": repository})

    def _info(self, repository: str) -> None:
        found = self.hub.repositories.get(repository)
        if found is None or (found.private and not self._known):
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        commit, files = found.commits[-1]
        told = {"id": repository, "modelId": repository, "sha": commit, "private": found.private}
        self._send(200, told | {"tags": [], "siblings": [{"rfilename": name} for name in files]})

    def _preupload(self, repository: str, files: list[dict[str, Any]]) -> None:
        if self._may_write(repository):
            large = (".safetensors", ".png")
            modes = [
                {"path": x["path"], "uploadMode": "lfs" if x["path"].endswith(large) else "regular"} for x in files
            ]
            self._send(200, {"files": [mode | {"shouldIgnore": False, "oid": None} for mode in modes]})

    def _batch(self, repository: str, objects: list[dict[str, Any]]) -> None:
        if self._may_write(repository):
            actions = [{"upload": {"href": f"{self.hub.store}/store/{x['oid']}"}} for x in objects]
            told = [{"oid": x["oid"], "size": x["size"], "actions": y} for x, y in zip(objects, actions, strict=True)]
            self._send(200, {"transfer": "basic", "objects": told})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        if not self._may_write(repository):
            return
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commit = self.hub.repositories[repository].add(files)
        address = f"{self.hub.endpoint}/{repository}/commit/{commit}"
        self._send(200, {"success": True, "commitOid": commit, "commitUrl": address, "hookOutput": ""})

    def _resolve(self, repository: str, revision: str, path: str) -> None:
        found = self.hub.repositories.get(repository)
        if found is None or (found.private and not self._known):
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        commit = found.at(revision)
        if commit is None:
            self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return
        if path not in commit[1]:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit[0]}
            self._send(404, {"error": "Entry not found"}, headers)
            return
        contents = commit[1][path]
        oid = hashlib.sha256(contents).hexdigest()
        headers = {"X-Repo-Commit": commit[0], "ETag": f'"{oid}"'}
        if oid not in self.hub.objects:
            self._bytes(contents, headers=headers)
            return
        linked = {"X-Linked-Size": str(len(contents)), "X-Linked-ETag": f'"{oid}"'}
        self._bytes(b"", 302, headers | linked | {"Location": f"{self.hub.store}/store/{oid}?signed=1"})
