"""The log in Apache Kafka; the only place that imports Kafka clients."""

from ray_rec.log.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
