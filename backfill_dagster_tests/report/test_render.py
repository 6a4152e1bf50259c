"""A coverage as HTML and Markdown: every number is there, and hostile text stays text."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

import pytest

from backfill_dagster.model import Outcome
from backfill_dagster.report import Coverage, render_html, render_markdown
from backfill_dagster.report.coverage import Missing
from backfill_dagster.report.markdown import table
from backfill_dagster.report.reasons import REASONS

HOSTILE = "<script>alert('1')</script>&\"|`**[x](javascript:1)"


def coverage() -> Coverage:
    missing = Missing(
        dids=3, errors=Counter({HOSTILE: 2, "NoPds": 1}), examples=[(HOSTILE, "host~0000", f"{HOSTILE}\nline two")]
    )
    return Coverage(
        name="study",
        generated_at="2026-11-23T19:00:00.000Z",
        records_path=f"/data/{HOSTILE}/records",
        dids=1234,
        left=20,
        outcomes=Counter({Outcome.COMPLETE: 1200, Outcome.UNCHANGED: 11, Outcome.UNRESOLVABLE: 3, Outcome.PENDING: 20}),
        hosts={HOSTILE: Counter({Outcome.COMPLETE: 1200}), "b.example": Counter({Outcome.PENDING: 20})},
        rows=Counter({"post": 98765, HOSTILE: 1}),
        undated=7,
        quarantined=8,
        missing={Outcome.UNRESOLVABLE: missing, Outcome.PENDING: Missing(dids=20, errors=Counter({"-": 20}))},
        columns={HOSTILE: {HOSTILE: Counter({Outcome.COMPLETE: 5}), "(null)": Counter({Outcome.PENDING: 2})}},
    )


class Page(HTMLParser):
    """Tags, attributes and text of a page; tags must be closed in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_all_numbers_and_no_foreign_markup() -> None:
    page = Page(render_html(coverage()))
    assert not {"script", "link", "img", "iframe", "a"} & set(page.tags)
    assert page.attributes <= {"lang", "charset", "class", "style", "role", "aria-label"}
    assert "1,211 of 1,234 DIDs complete, 20 left to fetch, 3 not to be had. 98,766 live rows" in page.text
    assert "8 records in quarantine, 7 left out as undated" in page.text
    for text in (HOSTILE, f"{HOSTILE}\nline two", f"/data/{HOSTILE}/records", "2026-11-23T19:00:00.000Z"):
        assert text in page.text
    for outcome in (Outcome.COMPLETE, Outcome.UNCHANGED, Outcome.UNRESOLVABLE, Outcome.PENDING):
        assert REASONS[outcome][0] in page.text
    assert page.tags["table"] == 4 + 2 * 2
    assert "pending: 20" in page.text


def test_an_empty_coverage_is_a_page_too() -> None:
    page = Page(render_html(Coverage(name="study", generated_at="now", records_path="/nowhere")))
    assert "0 of 0 DIDs complete" in page.text
    assert "What is missing" not in page.text


def test_markdown_has_its_tables() -> None:
    text = render_markdown(coverage())
    assert text.startswith("**study**: 1,211 of 1,234 DIDs complete, 20 left to fetch, 98,766 live rows\n")
    assert "| b.example | 0 | 0 | 0 | 20 |" in text
    assert "| post | 98,765 |" in text
    assert text.endswith("8 records in quarantine, 7 left out as undated")
    assert "<script>" not in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        assert set(lines[1]) == set("|- ")


def test_markdown_without_troubles_says_nothing_of_them() -> None:
    text = render_markdown(Coverage(name="study", generated_at="now", records_path="/nowhere"))
    assert "quarantine" not in text
    assert "0 of 0 DIDs complete" in text


@pytest.mark.parametrize(
    ("cell", "shown"),
    [("a|b", r"a\|b"), ("two\nlines\t and more", "two lines and more"), ("<b>&", "&lt;b>&amp;"), ("", "")],
)
def test_cells_stay_in_their_cell(cell: str, shown: str) -> None:
    assert table(("head",), [(cell,)]) == f"| head |\n| --- |\n| {shown} |"


def test_every_outcome_has_its_reason() -> None:
    assert set(REASONS) == set(Outcome)
    assert all(why for why, _ in REASONS.values())
