"""Text of an error that ends a command. This module does not import torch."""

from __future__ import annotations

from vaegan.runtime.program import with_program_name

SHOW_TRACEBACK = "HYDRA_FULL_ERROR"  # environment variable of Hydra; 1: raise errors


def error_exit(message: str) -> SystemExit:
    """Return the exception that ends a command with a message and status 1."""
    message = with_program_name(escape(message))
    return SystemExit(f"error: {message}\n(set {SHOW_TRACEBACK}=1 to see the traceback)")


def escape(message: str) -> str:
    """Escape control characters, because a message may quote the content of a file."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in message)
