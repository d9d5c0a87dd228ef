"""Words for people that know what they say: a code with parameters, for whoever speaks another language."""

from __future__ import annotations


class Words(str):
    """An English sentence, and its code and parameters."""

    code: str
    params: dict[str, str]

    def __new__(cls, text: str, code: str, **params: str) -> Words:
        """The sentence ``text``."""
        made = super().__new__(cls, text)
        made.code = code
        made.params = params
        return made
