"""Where a stream's metrics go: one small file for each place, all behind `Tracker`."""

from ray_rec.tracking.tracker import Tracker

__all__ = ["Tracker"]
