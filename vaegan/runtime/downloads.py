"""Downloads that fail with an explanation instead of waiting forever."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SECONDS_WITHOUT_DATA = 60.0  # longest wait for a server's next bytes


@contextmanager
def download_timeout() -> Iterator[None]:
    """Limit the time that downloads in the context wait for data; by default they wait forever.

    A server that sends nothing causes a TimeoutError, which is an OSError.
    """
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_WITHOUT_DATA)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


@contextmanager
def downloading_weights(component: str, remedy: str) -> Iterator[None]:
    """Explain why weights cannot be downloaded with torch.hub, or why the download is unreadable.

    Args:
        component: Component that needs the weights, as typed: "feature_extractor=clip".
        remedy: Other ways to get the weights.

    Raises:
        ValueError: The download failed, or a file that was downloaded before is damaged.
    """
    try:
        with download_timeout():
            yield
    except OSError as error:
        raise ValueError(f"{component}: cannot download the weights ({error}); {remedy}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        folder = Path(torch.hub.get_dir(), "checkpoints")
        raise ValueError(
            f"{component}: the weights that were downloaded to {folder} are damaged; delete them "
            f"to download them again, or {remedy}"
        ) from error
