"""The network: text encoder, item vectors, sequence trunk, heads and losses."""

from ray_rec.model.config import EncoderConfig, ModelConfig
from ray_rec.model.servable import Servable

__all__ = ["EncoderConfig", "ModelConfig", "Servable"]
