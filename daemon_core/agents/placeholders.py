"""What arguments and variables of a provider's entry leave to be filled in: ``{work_dir}`` and so on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from daemon_core.agents.family import LaunchRequest

KNOWN: Final = ("prompt", "work_dir", "run_dir")
_NAMED = re.compile(r"\{([a-z_]+)\}")


def named_in(text: str) -> list[str]:
    """The placeholders in a text."""
    return _NAMED.findall(text)


def filled(texts: Iterable[str], request: LaunchRequest) -> tuple[str, ...]:
    """Texts with their placeholders filled in; what is filled in is not looked at again."""
    values = {"prompt": request.prompt, "work_dir": request.work_dir, "run_dir": request.run_dir}
    return tuple(_NAMED.sub(lambda found: values.get(found[1], found[0]), text) for text in texts)
