"""Processes forked from one that has the heavy imports behind it."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any


def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # The first AdamW imports torch._dynamo.
    context.set_forkserver_preload(["stablevelocity.training.trainer", "torch._dynamo"])
    return context


def spawn(target: Callable[..., None], *arguments: Any) -> int:
    """Run `target` in a process of its own; its exit code (minus the signal that killed it)."""
    child = processes().Process(target=target, args=arguments)
    child.start()
    child.join(900)  # a limit for a test that hangs, not a promise
    assert child.exitcode is not None
    return child.exitcode
