"""`ray-rec models`: which versions exist, which one is served, and going back to an older one."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ray_rec.cli.options import AsJson, ConfigFile, Overrides, settings, show

if TYPE_CHECKING:
    from ray_rec.registry import Current, Manifest, Registry

app = typer.Typer(
    help="List the versions of the model, go back to one, go on again.", no_args_is_help=True
)

QUALITY = ("loss", "@", "auc")
"""Parts of the names of metrics that tell how good a version is; the others count records."""


def _registry(config: ConfigFile, overrides: Overrides) -> "Registry":
    from ray_rec.registry import Registry

    return Registry(settings(config, overrides).registry)


@app.command("list")
def list_versions(
    config: ConfigFile = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """List the versions, newest last, with kind, gate and metrics; * marks the one in service."""
    registry = _registry(config, overrides)
    current = registry.current()
    manifests = [registry.manifest(version) for version in registry.versions()]
    if as_json:
        show({"current": current, "versions": manifests}, as_json=True)
        return
    for manifest in manifests:
        mark = "*" if current is not None and manifest.version == current.version else " "
        typer.echo(f"{mark} {_line(manifest)}")
    typer.echo(_summary(current, len(manifests)))


def _line(manifest: "Manifest") -> str:
    made = datetime.fromtimestamp(manifest.created_at / 1000, UTC).isoformat(timespec="seconds")
    gate = "passed" if manifest.gate.passed else f"failed ({manifest.gate.reason})"
    measured = manifest.metrics.items()
    metrics = "  ".join(f"{k} {v:.4g}" for k, v in measured if any(part in k for part in QUALITY))
    about = f"{made}  {manifest.kind:<5}  {manifest.num_items} items  gate {gate}"
    return f"{manifest.version:>8}  {about}  {metrics}"


def _summary(current: "Current | None", num_versions: int) -> str:
    if current is None:
        return f"{num_versions} versions, none in service"
    held = ", held by a rollback until `ray-rec models release`" if current.held else ""
    return f"{num_versions} versions, {current.version} in service{held}"


@app.command()
def rollback(
    to: Annotated[
        int | None, typer.Option(help="Version to serve; by default the one before.")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Serve an older version on all replicas, and hold it until `release`."""
    show(_registry(config, overrides).rollback(to), as_json)


@app.command()
def release(
    config: ConfigFile = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Lift the hold of `rollback`: the newest version that passed the gate is served again."""
    show(_registry(config, overrides).release(), as_json)
