"""Which parts of a line of code are words of the language, strings, numbers and comments. No Qt.

Each line is looked at by itself, when it is drawn: a diff has holes, so what spans lines is not known anyway.
One expression a language, made when it is first needed; no library, whose import would cost more than all of
this.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal, NamedTuple

Kind = Literal["comment", "string", "number", "keyword", "name"]
Part = tuple[int, int, Kind]
"""(from, to, what it is)."""
LINE_CHARS: Final = 1_000
"""Of a line; what is behind is not code that somebody reads."""


class Language(NamedTuple):
    """What is special in a language. ``comments`` are expressions for where one begins, to the line's end."""

    keywords: str
    comments: tuple[str, ...] = ("//",)
    strings: str = "\"'"
    ignore_case: bool = False
    blocks: bool = True
    """Whether it has comments between /* and */."""


_C_LIKE: Final = (
    "if else for while do switch case default break continue return goto struct enum union const static"
    " void int long short char bool float double unsigned signed sizeof typedef extern volatile inline true"
    " false null nullptr NULL class public private protected virtual override template typename namespace"
    " using new delete this throw try catch auto final operator"
)
_JS: Final = (
    "abstract any as async await break case catch class const continue debugger declare default delete do"
    " else enum export extends false finally for from function get if implements import in instanceof"
    " interface is keyof let namespace never new null number of override package private protected public"
    " readonly return satisfies set static string super switch this throw true try type typeof undefined"
    " unknown var void while yield boolean"
)
_LANGUAGES: Final[dict[str, Language]] = {
    "python": Language(
        "and as assert async await break case class continue def del elif else except False finally for"
        " from global if import in is lambda match None nonlocal not or pass raise return self True try"
        " type while with yield",
        ("#",),
        blocks=False,
    ),
    "javascript": Language(_JS, strings="\"'`"),
    "c": Language(_C_LIKE),
    "java": Language(
        _C_LIKE
        + " abstract boolean byte extends finally implements import instanceof interface native package"
        " record sealed super synchronized throws transient var val fun when object data internal sealed"
        " string var foreach in out ref async await get set"
    ),
    "go": Language(
        "break case chan const continue default defer else fallthrough for func go goto if import"
        " interface map package range return select struct switch type var nil true false iota string int"
        " error bool byte",
        strings="\"'`",
    ),
    "rust": Language(
        "as async await break const continue crate dyn else enum extern false fn for if impl in let loop"
        " match mod move mut pub ref return self Self static struct super trait true type unsafe use where"
        " while",
        strings='"',
    ),
    "ruby": Language(
        "alias and begin break case class def defined do else elsif end ensure false for if in module next"
        " nil not or redo rescue retry return self super then true undef unless until when while yield"
        " require",
        ("#",),
        blocks=False,
    ),
    "php": Language(
        _C_LIKE + " echo function foreach as use array fn match elseif require include", ("//", "#")
    ),
    "swift": Language(
        "associatedtype as async await break case catch class continue default defer deinit do else enum"
        " extension false fileprivate for func guard if import in init inout internal is let nil open"
        " operator private protocol public repeat return self static struct subscript super switch throw"
        " throws true try typealias var where while",
        strings='"',
    ),
    "shell": Language(
        "if then else elif fi for while until do done case esac in function return local export readonly"
        " unset shift exit break continue set source trap eval exec",
        (r"(?<![\w$&{])#",),
        blocks=False,
    ),
    "sql": Language(
        "add all alter and as asc begin between by case check column commit constraint create cross"
        " default delete desc distinct drop else end exists foreign from full group having if in index"
        " inner insert into is join key left like limit not null on or order outer primary references"
        " replace returning right rollback select set table then transaction trigger union unique update"
        " using values view when where with without",
        ("--",),
        ignore_case=True,
    ),
    "data": Language("true false null yes no on off", ("#",), blocks=False),
    "json": Language("true false null", (), '"', blocks=False),
    "markup": Language("", (), blocks=False),
    "style": Language("important media import supports keyframes from to", ("//",)),
}
_BY_SUFFIX: Final[dict[str, str]] = {
    suffix: name
    for name, suffixes in {
        "python": "py pyi pyx",
        "javascript": "js jsx ts tsx mjs cjs mts cts vue svelte",
        "c": "c h cc cpp cxx hh hpp hxx m mm ino glsl",
        "java": "java kt kts scala cs groovy gradle dart",
        "go": "go",
        "rust": "rs",
        "ruby": "rb rake gemspec",
        "php": "php",
        "swift": "swift",
        "shell": "sh bash zsh fish ps1",
        "sql": "sql",
        "data": "toml yaml yml ini cfg conf env properties dockerfile mk cmake tf",
        "json": "json jsonc json5",
        "markup": "html htm xml svg",
        "style": "css scss less sass",
    }.items()
    for suffix in suffixes.split()
}
_BY_NAME: Final = {"dockerfile": "shell", "makefile": "shell", "gemfile": "ruby", "rakefile": "ruby",
                   "justfile": "shell", ".env": "data", ".gitignore": "data"}  # fmt: skip


def language_of(path: str) -> str:
    """The language of a file by its name; empty: none that is known here."""
    name = path.rpartition("/")[2].lower()
    return _BY_NAME.get(name) or _BY_SUFFIX.get(name.rpartition(".")[2] if "." in name else "", "")


@functools.lru_cache(maxsize=4_096)
def parts_of(text: str, language: str) -> tuple[Part, ...]:
    """The parts of a line that are something special, in order."""
    expression = _expression(language)
    if expression is None:
        return ()
    found: list[Part] = []
    for match in expression.finditer(text[:LINE_CHARS]):
        kind = "name" if match.lastgroup == "key" else match.lastgroup
        if kind is not None and match.end() > match.start():
            found.append((match.start(), match.end(), kind))  # type: ignore[arg-type]
    return tuple(found)


@functools.cache
def _expression(name: str) -> re.Pattern[str] | None:
    language = _LANGUAGES.get(name)
    if language is None:
        return None
    if name == "markup":
        return re.compile(
            r"(?P<comment><!--.*?(?:-->|$))|(?P<string>\"[^\"]*\"|'[^']*')|(?P<keyword></?[\w:-]+|/?>)"
        )
    comments = [f"(?:{start}).*$" for start in language.comments]
    if language.blocks:
        comments += [r"/\*.*?(?:\*/|$)", r"^\s*\*(?:\s.*|/.*)?$"]
    quotes = [rf"{quote}(?:\\.|[^{quote}\\])*(?:{quote}|$)" for quote in language.strings]
    words = "|".join(sorted(set(language.keywords.split()), key=len, reverse=True))
    pieces = [
        f"(?P<comment>{'|'.join(comments)})" if comments else "",
        f"(?P<string>{'|'.join(quotes)})",
        r"(?P<number>(?<![\w.])(?:0[xob][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\w{0,3}(?![\w]))",
        rf"(?P<keyword>(?<![\w.$-])(?:{words})(?![\w-]))" if words else "",
        r"(?P<name>(?<![\w.])@\w[\w.]*|(?<=\bdef )\w+|(?<=\bclass )\w+|(?<=\bfunction )\w+|(?<=\bfn )\w+"
        r"|(?<=\bfunc )\w+)",
    ]
    if name == "data":
        pieces.insert(1, r"(?P<key>^\s*-?\s*[\w.\"'-]+(?=\s*[:=])|^\s*\[[^\]]*\])")
    if name == "json":
        pieces.insert(0, r"(?P<key>\"(?:\\.|[^\"\\])*\"(?=\s*:))")
    flags = re.IGNORECASE if language.ignore_case else re.NOFLAG
    return re.compile("|".join(piece for piece in pieces if piece), flags)
