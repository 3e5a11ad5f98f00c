"""A store: target sets by expert and fingerprint."""

from collections.abc import Iterator

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.layout import SPEC
from coat.pipeline.store.target_set import TargetSet


class TargetStore:
    """A folder or URL that holds target sets. It need not exist yet."""

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)  # once, at the border: workers do not share the driver's folder

    def set_url(self, spec: TargetSpec) -> str:
        return storage.join(self.url, spec.expert, spec.fingerprint)

    def target_sets(self) -> Iterator[TargetSet]:
        """Every target set, by expert and fingerprint."""
        for expert in storage.list_names(self.url):
            for fingerprint in storage.list_names(storage.join(self.url, expert)):
                if storage.exists(storage.join(self.url, expert, fingerprint, SPEC)):
                    yield TargetSet.open(storage.join(self.url, expert, fingerprint))

    def target_set(self, expert: str, fingerprint: str | None = None) -> TargetSet:
        """One expert's targets. InputError where there are none, or several and no fingerprint (or its start)."""
        names = [n for n in storage.list_names(storage.join(self.url, expert)) if n.startswith(fingerprint or "")]
        if not names:
            have = ", ".join(storage.list_names(self.url)) or "nothing"
            wanted = f"{expert}@{fingerprint}" if fingerprint else expert
            raise InputError(f"{self.url}: no targets of {wanted}; it has {have}. Run `coat extract` first")
        if len(names) > 1:
            raise InputError(
                f"{self.url}: {expert} has fingerprints {', '.join(names)}; say which, as {expert}@{names[0][:6]}"
            )
        return TargetSet.open(storage.join(self.url, expert, names[0]))
