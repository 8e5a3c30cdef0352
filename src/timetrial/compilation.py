"""Where compiled programs are kept between processes, and when they may not be."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def cache_folder() -> Path:
    """Where compiled programs are kept: `timetrial/xla` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "timetrial" / "xla"


def use_cache(folder: Path) -> None:
    """Keeps every compiled program in `folder`, at most 2 GiB of them."""
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", 2 << 30)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()


def forget_cache() -> None:
    """From here on every program is compiled anew: under the seconds clock a submission pays for its compilation."""
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
