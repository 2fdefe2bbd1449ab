"""Everything that can be known to be wrong before something is applied, all at once."""

from dataclasses import dataclass
from pathlib import Path

from millrace.k8s import rendering, secrets, versions, written
from millrace.k8s.problems import Unfit
from millrace.k8s.rendering import Overlay


@dataclass(frozen=True)
class Server:
    """What the caller knows of the cluster; None: nothing, and then it is not looked at."""

    kubernetes: str | None = None
    context: str | None = None
    expected_context: str | None = None


def problems(folder: Path, server: Server) -> list[str]:
    """One line for each thing to mend, with its remedy."""
    found = _wrong_context(server)
    try:
        overlay = rendering.read(folder)
    except Unfit as error:
        return found + list(error.problems)
    if server.kubernetes:
        minimum = overlay.versions[versions.KUBERNETES_MINIMUM]
        found += filter(None, [versions.too_old(server.kubernetes, minimum)])
    return found + _stale(overlay) + _secrets(overlay)


def _wrong_context(server: Server) -> list[str]:
    if not server.expected_context or server.context == server.expected_context:
        return []
    given = f"is {server.context!r}" if server.context else "is not set"
    return [
        f"kubectl's context {given}, and {server.expected_context!r} is meant. Switch with "
        f"`kubectl config use-context {server.expected_context}`, or say which one you mean."
    ]


def _stale(overlay: Overlay) -> list[str]:
    try:
        wanted = rendering.render(overlay)
    except Unfit as error:
        return list(error.problems)
    found = written.changes(wanted, overlay.folder / rendering.MODELS)
    return [
        f"{change.path}: {_SAID[change.kind]}. "
        f"Run `millrace k8s render --overlay {overlay.folder}`."
        for change in found
    ]


def _secrets(overlay: Overlay) -> list[str]:
    folder = overlay.folder / secrets.FOLDER
    remedy = f"Run `millrace k8s secrets --overlay {overlay.folder}`."
    return secrets.problems(folder, overlay.registry, remedy)


_SAID = {
    written.Kind.NEW: "is not rendered yet",
    written.Kind.CHANGED: "is not what cluster.yaml, models.yaml and versions.env say",
    written.Kind.GONE: "was rendered from what is no longer there",
}
