"""A stand-in for the Hugging Face hub: what its library asks when it resolves a file, and a CDN at another origin.

    with HubServer() as hub:
        repo = hub.add("people/model", {"weights.bin": Content(1 << 20)}, gated=True)
        Network(hub=Hub(endpoint=hub.base, token=hub.token))

``/{repo}/resolve/{revision}/{path}``, GET and HEAD: files of ``large`` are redirected to the CDN with their sha256 in
``X-Linked-ETag``, others are sent with git's sha1 as ``ETag``; ``X-Repo-Commit`` is on all. What is refused carries the
hub's own ``X-Error-Code``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

from fault_server import FaultServer, Literal, Route

if TYPE_CHECKING:
    from fault_server import Content, Seen

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """Files by path. ``routes``: of the CDN for large files, of the hub for others; both can be told to fail."""

    name: str
    files: dict[str, Content]
    gated: bool = False
    private: bool = False
    commit: str = COMMIT
    large: set[str] = field(default_factory=set)
    routes: dict[str, Route] = field(default_factory=dict)


class HubServer:
    """Two servers: ``hub`` and ``cdn``. ``seen`` holds the requests to the hub in their order."""

    token = "hf_right"  # noqa: S105  # a test's

    def __init__(self) -> None:
        self.hub = FaultServer()
        self.cdn = FaultServer()
        self.hub.lookup = self._resolve
        self.repos: dict[str, Repo] = {}
        self.seen: list[Seen] = []
        self.head_statuses: list[int] = []

    def __enter__(self) -> Self:
        self.hub.__enter__()
        self.cdn.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.cdn.__exit__(*error)
        self.hub.__exit__(*error)

    @property
    def base(self) -> str:
        return self.hub.base

    def add(self, name: str, files: dict[str, Content], *, small: bool = False, gated: bool = False,
            private: bool = False) -> Repo:  # fmt: skip
        repo = Repo(name, files, gated=gated, private=private, large=set() if small else set(files))
        self.repos[name] = repo
        for path, content in files.items():
            route = Route(content)
            repo.routes[path] = route
            if path in repo.large:
                self.cdn.add(f"/cdn/{content.sha256}", route)
        return repo

    def _resolve(self, seen: Seen) -> Route | None:
        self.seen.append(seen)
        name, _, rest = seen.path.partition("?")[0].lstrip("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        repo = self.repos.get(unquote(name))
        if seen.method == "HEAD" and self.head_statuses:
            return _refused(self.head_statuses.pop(0), "")
        refusal = self._refusal(repo, seen, unquote(revision), unquote(path))
        if refusal is not None or repo is None:
            return refusal
        return self._file(repo, unquote(path))

    def _refusal(self, repo: Repo | None, seen: Seen, revision: str, path: str) -> Route | None:
        sent = seen.headers.get("Authorization", seen.headers.get("authorization", ""))
        known = sent == f"Bearer {self.token}"
        if sent and not known:
            return _refused(401, "", message="Invalid credentials in Authorization header")
        if repo is None or (repo.private and not known):
            return _refused(404 if known else 401, "RepoNotFound")
        if repo.gated and not known:
            return _refused(403 if sent else 401, "GatedRepo")
        if revision not in {"main", repo.commit}:
            return _refused(404, "RevisionNotFound")
        return None if path in repo.files else _refused(404, "EntryNotFound", commit=repo.commit)

    def _file(self, repo: Repo, path: str) -> Route:
        content, route = repo.files[path], repo.routes[path]
        if path not in repo.large:
            blob = hashlib.sha1(b"blob %d\0" % content.size + content.bytes, usedforsecurity=False).hexdigest()
            route.etag = f'"{blob}"'
            route.headers["X-Repo-Commit"] = repo.commit
            return route
        return Route(
            Literal(b""),
            redirect=self.cdn.url(f"/cdn/{content.sha256}?X-Signature=secret"),
            headers={
                "X-Repo-Commit": repo.commit,
                "X-Linked-ETag": f'"{content.sha256}"',
                "X-Linked-Size": str(content.size),
                "ETag": f'"{content.sha256}"',
            },
        )


def _refused(status: int, code: str, *, message: str = "", commit: str = "") -> Route:
    said = {"X-Error-Code": code, "X-Error-Message": message or code, "X-Repo-Commit": commit}
    return Route(Literal(b""), statuses=[status], headers={name: value for name, value in said.items() if value})
