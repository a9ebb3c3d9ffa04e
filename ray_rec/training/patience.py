"""When a bounded run ends before the log does: its newest versions brought nothing."""

from ray_rec.registry import Registry


class Patience:
    """Counts versions that the gate refused; what it stands on is in the registry alone.

    Args:
        registry: URL of the registry that the run publishes to.
        most: refused versions in a row that are borne; 0 bears all.
    """

    def __init__(self, registry: str, most: int) -> None:
        self._registry, self._most = registry, most
        self._first: int | None = None

    def is_spent(self, number: int) -> bool:
        """Whether to take no window from `number` on; the first one asked about begins the run.

        Raises:
            RegistryError: the registry cannot be read.
        """
        if not self._most:
            return False
        if self._first is None:
            self._first = number
        registry = Registry(self._registry, create=True)
        newest = [v for v in registry.versions() if v > self._first][-self._most :]
        refused = (not registry.manifest(version).gate.passed for version in newest)
        return len(newest) == self._most and all(refused)
