"""Runs in Weights & Biases; WANDB_MODE=offline keeps them for `wandb sync`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_rec.errors import ConfigError

_STEP = "window"
"""Axis of all charts: W&B's own steps may not go back, as windows do that are learned again."""


class WandB:
    """Makes a run with the first window; how to reach the server is W&B's own business.

    Args:
        folder: a local one for W&B's files; None leaves the place to W&B.
        project: the project that the run belongs to.
        config: what the run was told, kept with it.

    Raises:
        ConfigError: the package is not installed, or nobody is logged in to the server.
    """

    def __init__(self, folder: Path | None, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                'training.trackers names wandb, which needs: pip install "ray-rec[wandb]"'
            ) from error
        online = wandb.setup().settings.mode in ("online", "shared")
        if online and not wandb.login(prompt=False, verify=False):
            raise ConfigError(
                "training.trackers names wandb, but there is no key for its server: "
                "run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline"
            )
        self._wandb, self._folder, self._project, self._config = wandb, folder, project, config
        self._run: wandb.Run | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point."""
        if self._run is None:
            self._run = self._wandb.init(
                project=self._project,
                dir=self._folder,
                config=dict(self._config),
                settings=self._wandb.Settings(console="off", silent=True),
            )
            self._run.define_metric("*", step_metric=_STEP)
        self._run.log({**metrics, _STEP: step})

    def close(self) -> None:
        """End the run, once all of it is sent or kept."""
        if self._run is not None:
            self._run.finish()
