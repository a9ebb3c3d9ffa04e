"""The Ray Serve application: `Recommender` answers over HTTP, `Encoder` turns new texts to vectors.

    serve run serve.app:build log=sqlite:///var/log.db registry=var/registry

`ray-rec serve` does the same through `serve.launch`, which also sets HAProxy up.
"""

import asyncio
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve as ray_serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from ray_rec.config import RunConfig
from ray_rec.config import build as build_config
from ray_rec.errors import ConfigError
from ray_rec.features.config import FeatureConfig
from ray_rec.log import open_log
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.registry import Registry
from ray_rec.serving.config import ServingConfig
from ray_rec.serving.encoders import HeldEncoders, encode_together
from ray_rec.serving.replica import Replica
from serve.host import hold, http

_log = logging.getLogger(__name__)
_TEXTS_PER_BATCH = 64


class Scaling(BaseModel):
    """Replicas and resources of one deployment; delays in seconds."""

    model_config = ConfigDict(extra="forbid")

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=4, ge=1)
    target_ongoing_requests: float = Field(default=8.0, gt=0)
    upscale_delay_s: float = Field(default=5.0, ge=0)
    downscale_delay_s: float = Field(default=60.0, ge=0)
    look_back_period_s: float = Field(default=5.0, gt=0)
    metrics_interval_s: float = Field(default=1.0, gt=0)
    max_ongoing_requests: int = Field(default=64, ge=1)
    num_cpus: float = Field(default=1.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)
    num_threads: int = Field(default=1, ge=1)

    def options(self) -> dict[str, Any]:
        """Return the options of a Serve deployment."""
        return {
            "max_ongoing_requests": self.max_ongoing_requests,
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus},
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.target_ongoing_requests,
                "upscale_delay_s": self.upscale_delay_s,
                "downscale_delay_s": self.downscale_delay_s,
                "look_back_period_s": self.look_back_period_s,
                "metrics_interval_s": self.metrics_interval_s,
            },
        }


class AppArgs(BaseModel):
    """Arguments of `build`: where log and registry are, the rooms' sections, and scaling.

    `ready_wait_s`: how long a new replica may take to catch up before it is given requests; where
    the registry has no version yet it does not wait. `page` serves `/` and lists users for it.
    """

    model_config = ConfigDict(extra="forbid")

    log: str
    registry: str
    features: dict[str, Any] = Field(default_factory=dict)
    serving: dict[str, Any] = Field(default_factory=dict)
    encoder: dict[str, Any] = Field(default_factory=dict)
    recommender_scaling: Scaling = Scaling()
    encoder_scaling: Scaling = Scaling()
    ready_wait_s: float = Field(default=60.0, ge=0)
    page: bool = True

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Read arguments, or a whole `RunConfig` as a dict; ConfigError names what is wrong."""
        elsewhere = {part.name for part in fields(RunConfig)} - set(cls.model_fields)
        try:
            return cls.model_validate({k: v for k, v in values.items() if k not in elsewhere})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigError(f"serve argument {key}: {first['msg']}") from None


@ray_serve.deployment(name="Encoder", graceful_shutdown_timeout_s=5)
class Encoder:
    """Encodes texts that have no vector yet; requests that come together share a batch."""

    def __init__(self, config: dict[str, Any], registry: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._encoders = HeldEncoders(build_config(EncoderConfig, config, "encoder"), registry)

    @ray_serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def _encode(
        self, requests: list[tuple[TextEncoder, list[str]]]
    ) -> list[npt.NDArray[np.float32]]:
        return await asyncio.to_thread(encode_together, requests)

    async def __call__(self, texts: list[str], digest: str) -> npt.NDArray[np.float32]:
        """Return raw vectors [n, text_dim]; ConfigError when that encoder cannot be found."""
        encoder = await asyncio.to_thread(self._encoders.get, digest)
        parts = [texts[i : i + _TEXTS_PER_BATCH] for i in range(0, len(texts), _TEXTS_PER_BATCH)]
        vectors: list[npt.NDArray[np.float32]] = [
            await self._encode((encoder, part)) for part in parts
        ]
        return np.concatenate(vectors)

    def digests(self) -> list[str]:
        """Return which encoders are held here."""
        return self._encoders.digests()


@ray_serve.deployment(name="Recommender", graceful_shutdown_timeout_s=20)
@ray_serve.ingress(http)
class Recommender:
    """Answers over HTTP, with retrieval and both heads in this process."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, args: dict[str, Any], encoder: DeploymentHandle[Any]
    ) -> None:
        config = AppArgs.parse(args)
        torch.set_num_threads(config.recommender_scaling.num_threads)
        loop = asyncio.get_running_loop()

        async def encoded(texts: Sequence[str], digest: str) -> npt.NDArray[np.float32]:
            vectors: npt.NDArray[np.float32] = await encoder.remote(list(texts), digest)
            return vectors

        def encode(texts: Sequence[str], digest: str) -> npt.NDArray[np.float32]:
            return asyncio.run_coroutine_threadsafe(encoded(texts, digest), loop).result(60.0)

        registry = Registry(config.registry, create=True)
        self._replica = Replica(
            open_log(config.log),
            registry,
            build_config(FeatureConfig, config.features, "features"),
            build_config(ServingConfig, config.serving, "serving"),
            encode,
        )
        hold(self._replica, config.page)
        wait_s = 0.0 if registry.current() is None else config.ready_wait_s
        await asyncio.to_thread(self._replica.start, wait_s)

    def check_health(self) -> None:
        """Let Serve replace this replica when it can follow no further."""
        self._replica.check_health()

    async def __del__(self) -> None:
        if hasattr(self, "_replica"):
            await asyncio.to_thread(self._replica.close)


def build(args: AppArgs) -> Application:
    """Return the application; every section is checked here, before any replica starts."""
    build_config(FeatureConfig, args.features, "features")
    build_config(ServingConfig, args.serving, "serving")
    build_config(EncoderConfig, args.encoder, "encoder")
    with warnings.catch_warnings():
        # Deprecated in favour of variables that Serve does not read yet; 10 s is too slow.
        warnings.filterwarnings("ignore", ".*metrics_interval_s", DeprecationWarning)
        # Serve's decorator gives the class `options`, which mypy does not see
        encoder = Encoder.options(**args.encoder_scaling.options())  # type: ignore[attr-defined]
        recommender = Recommender.options(  # type: ignore[attr-defined]
            **args.recommender_scaling.options()
        )
    handle = encoder.bind(args.encoder, args.registry, args.encoder_scaling.num_threads)
    application: Application = recommender.bind(args.model_dump(), handle)
    return application
