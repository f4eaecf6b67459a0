"""Markup that cannot be broken out of."""

import base64
import hashlib
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from evolve.page import SCRIPT, STYLE, Html, escape, join, page, tag

HOSTILE = "</title><script>alert(1)</script>\"' onload=x \x00\ud800 & <!--"
ANY_TEXT = st.text(st.characters(exclude_categories=()))


class Reader(HTMLParser):
    """Reads back what a browser would see."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(ANY_TEXT, ANY_TEXT)
def test_text_stays_text_between_tags_and_in_attributes(inside: str, attribute: str) -> None:
    source = tag("p", inside, title=attribute)
    source.encode()
    reader = Reader(source)
    assert [name for name, _ in reader.starts] == ["p"]
    assert set(reader.starts[0][1]) == {"title"}
    if inside.isprintable():
        assert reader.text == inside


def test_markup_made_here_is_not_escaped_twice() -> None:
    inner = tag("b", "1 < 2")
    assert tag("p", inner, " & ", None, 3) == "<p><b>1 &lt; 2</b> &amp; 3</p>"
    assert escape(inner) is inner


def test_nothing_joined_is_nothing() -> None:
    assert join([]) == ""
    assert isinstance(join([]), Html)


def test_an_attribute_of_none_is_left_out() -> None:
    assert tag("td", class_=None, data_v=0) == '<td data-v="0"></td>'


def test_a_hostile_title_adds_no_element_to_the_page() -> None:
    plain, hostile = Reader(page("title", "body")), Reader(page(HOSTILE, HOSTILE))
    assert [name for name, _ in hostile.starts] == [name for name, _ in plain.starts]


def test_the_policy_admits_the_style_and_the_script_by_their_hashes_and_nothing_else() -> None:
    starts = Reader(page("title")).starts
    policy = next(
        attrs["content"] for _, attrs in starts if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (STYLE, SCRIPT)]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; base-uri 'none'"
    )


def test_the_page_holds_both_colour_schemes_and_fits_a_telephone() -> None:
    source = page("title")
    assert "prefers-color-scheme:dark" in source
    assert 'name="viewport" content="width=device-width' in source
