"""The HTML of the report: markup that escapes by itself, the page's look, and its shell.

Whatever a journal says is a plain `str` and is escaped when it meets a tag; only what `tag` made is `Html`
and goes in as it is. So no text can become markup by being forgotten. The page's content security policy is
the second lock on that door: it admits the one style sheet and the one script below by their hashes only.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable

from evolve.page_script import SCRIPT

# What XML and HTML have no place for: control characters, and halves of surrogate pairs (JSON can hold both).
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_VOID = {"meta", "br", "input"}


class Html(str):
    """Markup that is safe to write as it is. Made by `tag`, `join` and `escape` only."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Text of a value, escaped for between tags or a quoted attribute; `Html` stays as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True))


def join(parts: Iterable[object]) -> Html:
    """One piece of markup from several, plain ones escaped, None left out."""
    return Html("".join(escape(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: of the element.
        children: `Html` is taken as it is, None left out, anything else escaped.
        attributes: `class_` is written `class`, `fill_opacity` `fill-opacity`; None leaves one out.

    >>> tag("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    head = name
    for key, value in attributes.items():
        label = key.rstrip("_").replace("_", "-")
        if value is not None:
            head += f' {label}="{escape(value)}"'
    if name in _VOID:
        return Html(f"<{head}>")
    return Html(f"<{head}>{join(children)}</{name}>")


def section(title: str, note: str | None, *body: object) -> Html:
    """A card of the page: its title, a line that says how to read it, and its content."""
    return tag("section", tag("h2", title), tag("p", note, class_="note") if note else None, *body)


def page(title: str, *body: object) -> str:
    """A whole document that needs nothing beside itself."""
    script, style = sources()
    policy = f"default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    main = tag("body", MARKS, tag("main", *body), Html(f"<script>{SCRIPT}</script>"))
    return f"<!doctype html>\n{tag('html', head, main, lang='en-GB')}\n"


def sources() -> tuple[str, str]:
    """The script and the style of every report, as a content security policy names them."""
    return f"'{_hash(SCRIPT)}'", f"'{_hash(STYLE)}'"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"


# Shapes that `charts` places by <use>, about their own origin.
MARKS = Html(
    '<svg class="marks" width="0" height="0" aria-hidden="true"><defs>'
    '<path id="mark-best" d="M0-7.5L6.5 0L0 7.5L-6.5 0Z"/>'
    '<circle id="mark-start" r="5"/>'
    '<circle id="mark-dot" r="4"/>'
    '<path id="mark-failed" d="M-3.5-3.5L3.5 3.5M-3.5 3.5L3.5-3.5"/>'
    '<path id="mark-below" d="M-4.5-3.5H4.5L0 4Z"/>'
    "</defs></svg>"
)

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f6;--card:#fff;--ink:#17211f;--soft:#5a6764;--line:#dfe4e2;
--grid:#e8ecea;--dot:#3f7f93;--best:#0a6c62;--best-wash:#e3f1ee;--start:#b3560b;--bad:#b3261e;--curve:#7d9aa3;
--l0:#0067a8;--l1:#b85c00;--l2:#8a3fa0;--l3:#0b7a4b;--l4:#a8324a}
@media (prefers-color-scheme:dark){:root{--paper:#111715;--card:#19211f;--ink:#e4ebe8;--soft:#9baba6;
--line:#2c3734;--grid:#26302d;--dot:#7fb9cc;--best:#58d0bd;--best-wash:#153631;--start:#f2a45c;--bad:#ff8d84;
--curve:#6d8790;--l0:#62b4f0;--l1:#f2a45c;--l2:#cf93e2;--l3:#5fcf98;--l4:#f28ba0}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Noto Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1180px;margin:0 auto;padding:28px 20px 56px}
.marks{position:absolute}
header{margin-bottom:22px}
.line{margin:0}
h1{font-size:27px;line-height:1.2;margin:0 0 6px;font-weight:650;overflow-wrap:anywhere}
h2{font-size:18px;line-height:1.3;margin:0 0 2px;font-weight:650}
p{margin:0 0 8px}
.soft,.note{color:var(--soft)}
.note{font-size:13.5px;margin-bottom:12px;max-width:100ch}
.eyebrow{font-size:12.5px;letter-spacing:.05em;color:var(--soft);margin:0 0 4px}
.state{display:inline-block;padding:1px 10px;border-radius:99px;font-size:13px;border:1px solid var(--line);
background:var(--card);vertical-align:3px;margin-left:8px;font-weight:500;color:var(--soft);letter-spacing:0}
section,.tile{background:var(--card);border:1px solid var(--line);border-radius:12px}
section{padding:20px 22px;margin-top:18px;min-width:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(215px,1fr));gap:14px}
.tile{padding:14px 18px}
.tile b{display:block;font-size:28px;line-height:1.25;font-weight:650;font-variant-numeric:tabular-nums}
.tile .unit{font-size:16px;font-weight:500;color:var(--soft)}
.tile .label,.tile .more{font-size:13.5px;color:var(--soft)}
.tile .gain{color:var(--best);font-weight:600}
.tile .loss{color:var(--bad);font-weight:600}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));column-gap:18px}
.beside{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,6fr);gap:34px;align-items:start}
figure{margin:0;min-width:0}
.plot{padding:24px 14px 40px 52px;position:relative}
.plot>svg{display:block;width:100%;overflow:visible}
.plot text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}
.plot .end{text-anchor:end}
.plot .middle{text-anchor:middle}
.plot .grid{stroke:var(--grid);stroke-width:1}
.plot .base{stroke:var(--line);stroke-width:1}
.lines path{fill:none;vector-effect:non-scaling-stroke;stroke-linejoin:round;stroke-linecap:round}
.rule{stroke:var(--start);stroke-width:1.25;stroke-dasharray:5 4}
.curve{stroke:var(--curve);stroke-width:1.2;opacity:.42}
.curve:hover{opacity:1;stroke-width:2.6}
.curve-running{stroke:var(--dot);stroke-width:1.4;stroke-dasharray:3 4}
.curve-start{stroke:var(--start);stroke-width:2}
.curve-best{stroke:var(--best);stroke-width:2.6}
.rank{stroke-width:1.1;opacity:.5}
.rank:hover{opacity:1;stroke-width:2.6}
.r0{stroke:var(--soft);opacity:.2}.r1{stroke:var(--soft);opacity:.45}.r2{stroke:var(--dot)}.r3{stroke:var(--best)}
.parallel .plot>svg{cursor:crosshair}
.lines .out{opacity:.04}
.brush{fill:var(--best);opacity:.3;pointer-events:none}
.brushes{display:flex;flex-wrap:wrap;align-items:center;gap:6px 16px;font-size:13px;margin:0 0 6px}
.brushes[hidden]{display:none}
.brushes label{display:flex;align-items:center;gap:6px;color:var(--soft)}
.brushes select,.brushes button{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:3px 8px}
.brushes input{width:110px;accent-color:var(--best)}
.brushes output{color:var(--best);font-weight:600}
.upright{stroke:var(--line);stroke-width:1}
.slant{overflow:visible}
.sideways{overflow-x:auto}
.wide-chart{min-width:760px}
.wide-chart .plot{padding-bottom:92px;padding-left:84px}
.bar{fill:var(--dot)}
.bars{width:60%;min-width:120px}
.elite{fill:var(--best);opacity:.12}
.cloud{stroke:var(--soft);stroke-width:3;opacity:.3}
.missed{stroke:var(--bad);stroke-width:3.4;opacity:.75}
.box-in{fill:var(--soft);opacity:.5}.box-out{fill:var(--bad)}
.reach{stroke-width:1.1;stroke-dasharray:4 4;opacity:.8}
.reach:hover{opacity:1;stroke-width:2.4;stroke-dasharray:none}
.s0{stroke:var(--l0)}.s1{stroke:var(--l1)}.s2{stroke:var(--l2)}.s3{stroke:var(--l3)}.s4{stroke:var(--l4)}
.dot{fill:var(--dot)}
.best{fill:var(--best);stroke:var(--card);stroke-width:1.25}
.start{fill:var(--card);stroke:var(--start);stroke-width:2.4}
.failed{stroke:var(--bad);stroke-width:1.7;fill:none}
.below{fill:var(--dot);opacity:.75}
.anchor{stroke:var(--card);stroke-width:1.25}
.given{fill:none;stroke:var(--ink);stroke-width:1.4;opacity:.75}
.l0{fill:var(--l0)}.l1{fill:var(--l1)}.l2{fill:var(--l2)}.l3{fill:var(--l3)}.l4{fill:var(--l4)}
.plot g:hover>use,.plot circle:hover{stroke:var(--ink);stroke-width:2;opacity:1;fill-opacity:1}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:0;font-size:13px;
color:var(--soft)}
.legend li{display:flex;align-items:center;gap:7px}
.legend svg{flex:none;overflow:visible}
.legend .curve,.legend .rank{opacity:1}
.bred{white-space:normal;min-width:12ch}
.genes{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,252px),1fr));gap:16px 22px;
margin-top:14px}
.genes figcaption{display:flex;justify-content:space-between;align-items:baseline;gap:8px;flex-wrap:wrap}
.genes .plot{padding:10px 10px 24px 44px}
.genes figcaption b{font-weight:600;overflow-wrap:anywhere}
.genes figcaption span{font-size:12.5px;color:var(--soft);font-variant-numeric:tabular-nums}
.scroll{overflow:auto;max-height:640px;border:1px solid var(--line);border-radius:8px}
table{border-collapse:separate;border-spacing:0;font-size:13.5px;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:5px 12px;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid);
white-space:nowrap}
tbody tr:last-child>*{border-bottom:0}
th{font-weight:600}
thead th{color:var(--soft);font-weight:500;background:var(--card);border-bottom-color:var(--line)}
.num{text-align:right}
.sizes{white-space:normal;min-width:13ch}
.sizes span{white-space:nowrap}
.scroll thead th{position:sticky;top:0;z-index:2;padding:0}
.scroll thead th:first-child{left:0;z-index:3}
.scroll tbody th{position:sticky;left:0;background:var(--card);z-index:1}
th button{all:unset;box-sizing:border-box;width:100%;padding:7px 12px;cursor:pointer}
th button:hover{color:var(--ink)}
th button:focus-visible{outline:2px solid var(--best);outline-offset:-2px}
th button::after{content:"\\2195";opacity:.35;margin-left:5px;font-size:11px}
th[aria-sort] button{color:var(--ink)}
th[aria-sort=ascending] button::after{content:"\\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\\2193";opacity:1}
tr.winner>*,.scroll tr.winner>th{background:var(--best-wash)}
tr.failed-row td,tr.failed-row th{color:var(--soft)}
.reason{display:block;white-space:normal;min-width:24ch;max-width:38ch;font-size:12.5px;color:var(--bad);
overflow-wrap:anywhere}
.bad{color:var(--bad)}
.range{display:flex;align-items:center;gap:8px;min-width:200px;font-size:12px;color:var(--soft)}
.range svg{flex:1;height:18px;overflow:visible;margin:0 6px}
.range span{width:5.5ch}
.range span:first-child{text-align:right}
.range line{stroke:var(--line);stroke-width:2}
.plain{overflow-x:auto;margin-top:10px}
dl{columns:2 400px;column-gap:34px;margin:10px 0 0;font-size:13.5px}
dl div{display:grid;grid-template-columns:minmax(0,2fr) minmax(0,3fr);gap:14px;padding:2px 0;break-inside:avoid}
dt{color:var(--soft);overflow-wrap:anywhere}
dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
footer{color:var(--soft);font-size:13px;margin-top:22px}
@media (max-width:760px){.beside{grid-template-columns:minmax(0,1fr);gap:14px}}
@media (max-width:560px){main{padding:18px 10px 40px}section{padding:16px 14px}h1{font-size:23px}
.tiles{grid-template-columns:1fr 1fr;gap:10px}.tile{padding:11px 13px}.tile b{font-size:22px}
.plot{padding:24px 8px 40px 44px}
th,td{padding:5px 7px}th button{padding:7px}.plain tbody th{white-space:normal}.plain .wide{display:none}}
@media print{section,.tile{break-inside:avoid}.scroll{max-height:none;overflow:visible}
th button::after{content:""}}
"""
