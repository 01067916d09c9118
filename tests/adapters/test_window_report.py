"""The page about a window, read as a browser reads it, and the Markdown beside it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.adapters.profiles import profile_rows, summarize_profile
from everloop.adapters.window_report.columns import plot_column
from everloop.adapters.window_report.facts import decision_markdown, facts_of
from everloop.adapters.window_report.page import write_window_report
from everloop.adapters.window_report.timeline import WindowPoint, plot_over_time
from everloop.adapters.window_report.words import reason_in_words
from everloop.domain.checks import Finding
from everloop.domain.decision import RetrainingDecision
from everloop.domain.drift import compare_profiles
from everloop.domain.estimate import EstimatedPerformance
from everloop.domain.evidence import SliceEvidence
from everloop.domain.frames import derive_schema
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import PerformanceReport
from everloop.domain.quality import QualityReport
from everloop.domain.summaries import ProfileSummary
from tests.domain.examples import categories, numbers
from tests.factories import make_decision, make_rows, make_spec

EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Elements with their attributes in the order of the page, and the text inside each kind of them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of a kind that have these."""
        return [
            found
            for name, found in self.elements
            if name == tag
            and all(value in (found.get(key.rstrip("_")) or "").split() for key, value in attributes.items())
        ]


def normal(shift: float = 0.0, *, n: int = 2000, seed: int = 0) -> Any:
    return numbers(np.random.default_rng(seed).normal(shift, 1, n))


def scored(metric: float | None, *, baseline: float = 5.0, verdict: Any = "ok") -> PerformanceReport:
    if metric is None:
        return PerformanceReport(
            verdict="undetermined", reason_code="labels_missing", reason="labels are missing", rows=100, labelled=20
        )
    return PerformanceReport(
        verdict=verdict,
        reason_code="loss_within_margin",
        reason=f"mean loss {metric} against {baseline}",
        rows=100,
        labelled=100,
        metric=metric,
        baseline=baseline,
        low=metric - 0.5,
        high=metric + 0.5,
        lag_seconds=7200,
    )


def report(folder: Path, decision: RetrainingDecision | None = None, **changes: Any) -> Page:
    """The page about a decision, by default about one that drifted in `x`."""
    words: dict[str, Any] = {
        "earlier": [],
        "reference": ProfileSummary(rows=2000, columns={"x": normal(), "c": categories("aaab" * 500)}),
        "window": ProfileSummary(rows=2000, columns={"x": normal(2.0, seed=1), "c": categories("aaab" * 500)}),
        "importance": {"x": 0.9, "c": 0.1},
        "links": {},
    } | changes
    if decision is None:
        drift = compare_profiles(words["reference"], words["window"], min_rows=100)
        decision = make_decision("alert").model_copy(update={"drift": drift})
    return Page(write_window_report(folder, decision, **words))


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"action": "none"}, "Nothing to do"),
        ({"action": "none", "reason_codes": ("degradation", "cooldown")}, "Nothing to do: a retraining is held back"),
        ({"action": "alert"}, "Look at this"),
        ({"action": "retrain"}, "A retraining is on its way"),
        ({"action": "retrain", "outcome": "v2", "released": True}, "It was retrained: a new version went live"),
        ({"action": "retrain", "outcome": "refused"}, "It was retrained, the champion stays"),
    ],
)
def test_the_verdict_comes_first(tmp_path: Path, changes: dict[str, Any], title: str) -> None:
    decision = make_decision().model_copy(update=changes)
    page = report(tmp_path, decision)
    assert page.texts["h1"] == [title]
    assert page.source.index(title) < page.source.index("<h2>")
    assert page.texts["h2"][0] == "What was looked at"
    assert decision_markdown(decision, report_link=None).startswith(f"# {title}\n")


def test_broken_data_is_the_reason_whatever_else_was_seen(tmp_path: Path) -> None:
    error = Finding(column="temp", rule="has values", severity="error", message="is null in 40 % of the rows")
    warning = Finding(column="wind", rule="is known", severity="warning", message="is odd")
    quality = QualityReport(verdict="fail", reason="1 error", rows=24, findings=(error, warning))
    changes = {"quality": quality, "reason_codes": ("drift", "data_quality"), "reason": "drift stands; temp: is null"}
    decision = make_decision("alert").model_copy(update=changes)
    page = report(tmp_path, decision)
    assert "The data of this window are broken: temp: is null in 40 % of the rows." in page.texts["p"]
    assert any("whoever owns the data" in text for text in page.texts["p"])
    assert "is odd" in page.source


def test_the_page_needs_nothing_from_elsewhere_and_is_quickly_made(tmp_path: Path) -> None:
    columns = {f"n{number}": normal(0.2 * number, seed=number) for number in range(12)}
    columns |= {f"c{number}": categories([f"k{i % (number + 2)}" for i in range(2000)]) for number in range(8)}
    summary = ProfileSummary(rows=2000, columns=columns)
    other = ProfileSummary(rows=2000, columns=dict(zip(columns, [*reversed(columns.values())], strict=True)))
    earlier = [make_decision("none", window=day) for day in range(40)]
    report(tmp_path)  # the template engine is imported
    started = time.perf_counter()
    page = report(tmp_path, reference=summary, window=other, earlier=earlier, importance={})
    assert time.perf_counter() - started < 1.5
    assert len(page.source) < 300_000
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("img")
    assert not re.search(r"(src|href)=|url\(|@import", page.source)


def test_what_users_named_is_text_and_never_markup(tmp_path: Path) -> None:
    reference = ProfileSummary(rows=2000, columns={EVIL: categories("ab" * 1000)})
    window = ProfileSummary(rows=2000, columns={EVIL: categories([*"ab" * 900, *[EVIL] * 200])})
    drift = compare_profiles(reference, window, min_rows=100)
    finding = Finding(column=EVIL, rule=EVIL, severity="error", message=EVIL)
    decision = make_decision("retrain").model_copy(
        update={
            "model": EVIL,
            "version": EVIL,
            "drift": drift,
            "reason": EVIL,
            "reason_codes": (EVIL,),
            "outcome": EVIL,
            "quality": QualityReport(verdict="fail", reason=EVIL, rows=1, findings=(finding,)),
            "slices": (SliceEvidence(column=EVIL, value=EVIL, rows=9, drift=drift, performance=scored(6.0)),),
        }
    )
    page = report(
        tmp_path,
        decision,
        reference=reference,
        window=window,
        links={EVIL: f'"{EVIL}'},
        metric=EVIL,
        earlier=[decision],
    )
    assert drift.drifted == (EVIL,)
    assert not page.all("script")
    assert EVIL in page.texts["h3"]
    assert "<script" not in page.source
    assert "<script" not in decision_markdown(decision, report_link=None)


def test_links_lead_to_addresses_and_run_nothing(tmp_path: Path) -> None:
    page = report(tmp_path, links={"run": "http://127.0.0.1:5000/#/runs/1", "evil": "javascript:alert(1)"})
    assert [found["href"] for found in page.all("a")] == ["http://127.0.0.1:5000/#/runs/1"]


def test_a_screen_reader_finds_headings_captions_and_words_for_every_picture(tmp_path: Path) -> None:
    page = report(tmp_path, earlier=[make_decision("none", window=1)])
    assert page.all("html") == [{"lang": "en"}]
    pictures = [found for found in page.all("svg") if found.get("aria-hidden") != "true"]
    assert len(pictures) == 3
    assert all(found["role"] == "img" and found["aria-label"] for found in pictures)
    assert all(found.get("scope") in ("col", "row") for found in page.all("th"))
    assert len(page.texts["h1"]) == 1
    assert all(found.get("aria-label") and found.get("tabindex") == "0" for found in page.all("div", class_="scroll"))


def test_the_columns_that_drifted_come_first_and_then_those_the_model_leans_on(tmp_path: Path) -> None:
    shifts = {"calm": 0.0, "little": 0.4, "much": 2.0, "used": 0.02}
    reference = ProfileSummary(rows=2000, columns={name: normal() for name in shifts})
    window = ProfileSummary(rows=2000, columns={name: normal(by, seed=1) for name, by in shifts.items()})
    page = report(tmp_path, reference=reference, window=window, importance={"used": 0.9, "calm": 0.1})
    assert page.texts["h3"] == ["much", "little", "used", "calm"]
    assert len(page.all("article", class_="drifted")) == 2


def test_at_most_twelve_columns_are_drawn_and_the_others_stand_in_a_table(tmp_path: Path) -> None:
    names = [f"x{number:02}" for number in range(15)]
    reference = ProfileSummary(rows=2000, columns={name: normal() for name in names})
    window = ProfileSummary(rows=2000, columns={name: normal(2.0, seed=i) for i, name in enumerate(names)})
    page = report(tmp_path, reference=reference, window=window)
    assert len(page.all("article")) == 12
    (folded,) = page.texts["details"]
    drawn = set(page.texts["h3"])
    assert all((name in folded) != (name in drawn) for name in names)
    assert "3 more drifted" in page.source


def test_a_column_says_effect_floor_and_chance_in_words(tmp_path: Path) -> None:
    reference = ProfileSummary(rows=1000, columns={"c": categories("ab" * 500)})
    window = ProfileSummary(rows=1000, columns={"c": categories([*"ab" * 350, *"new" * 50, *"z" * 50], nulls=100)})
    page = report(tmp_path, reference=reference, window=window)
    said = " ".join(page.texts["li"])
    assert "missing values: 0% in the training data, 10% here; a rise of 1.0% counts; by chance with p = " in said
    assert re.search(r"never seen in training: 2\d% more than expected \([newz, ]+\); 0.2% counts", said)
    assert re.search(r"distance 0\.\d{3}, where 0.050 counts \(chi-squared\)", said)


def test_a_distribution_is_drawn_with_the_shares_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.normal(0, 1, 5000), rng.normal(1, 2, 3000)
    picture = plot_column("x", numbers(before), numbers(now))
    assert picture is not None
    steps = {kind: _heights(str(picture), kind) for kind in ("ref", "win")}
    low, high = (
        pick([np.quantile(rows, share, method="inverted_cdf") for rows in (before, now)])
        for pick, share in ((min, 0.002), (max, 0.998))
    )
    edges = np.linspace(low, high, len(steps["ref"]) + 1)
    exact = {"ref": np.histogram(before, edges)[0] / 5000, "win": np.histogram(now, edges)[0] / 3000}
    top = max(share.max() for share in exact.values())
    for kind, share in exact.items():
        # within a hundredth of the tallest bin: pixels have one decimal, rows at an edge may fall on either side
        np.testing.assert_allclose(steps[kind], share / top, atol=0.02)
    assert f"median {np.quantile(before, 0.5, method='inverted_cdf'):.4g} in the training data" in picture


def test_whole_numbers_are_not_cut_in_half_by_a_bin() -> None:
    hours = numbers(np.tile(np.arange(24.0), 50))
    picture = plot_column("hr", hours, hours)
    assert picture is not None
    heights = _heights(str(picture), "ref")
    assert len(heights) == 24
    np.testing.assert_allclose(heights, 1, atol=0.01)


def test_few_distinct_numbers_and_categories_are_drawn_as_shares() -> None:
    picture = plot_column("workingday", numbers([0, 0, 0, 1]), numbers([0, 1, 1, 1]))
    assert picture is not None
    assert "0 75% → 25%; 1 25% → 75%" in picture
    picture = plot_column("c", categories("aaab"), categories("aabz"))
    assert picture is not None
    assert "a 75% → 50%; b 25% → 25%; z 0% → 25%" in picture
    assert "z new" in picture


def test_the_rarest_of_many_categories_are_summed() -> None:
    many = categories([f"k{i}" for i in range(40) for _ in range(40 - i)])
    picture = plot_column("c", many, many)
    assert picture is not None
    shares = [int(share) for share in re.findall(r">(\d+)% → ", picture)]
    assert len(shares) == 9
    assert "32 others" in picture
    assert sum(shares) == pytest.approx(100, abs=5)


def test_a_column_without_values_has_no_picture(tmp_path: Path) -> None:
    empty = numbers([np.nan] * 10)
    assert plot_column("x", empty, normal()) is None
    assert plot_column("x", None, normal()) is None
    assert categories("ab").quantile(0.5) is None
    reference = ProfileSummary(rows=2000, columns={"x": normal()})
    page = report(
        tmp_path, reference=reference, window=ProfileSummary(rows=2000, columns={"x": numbers([np.nan] * 2000)})
    )
    assert "No picture" in page.source


def test_real_profiles_are_drawn(tmp_path: Path) -> None:
    rows, spec = make_rows(400), make_spec()
    schema = derive_schema(rows, spec)
    summaries = [summarize_profile(profile_rows(part, schema)) for part in (rows[:250], rows[250:])]
    page = report(tmp_path, reference=summaries[0], window=summaries[1])
    assert set(page.texts["h3"]) == set(spec.features.names)
    assert len(page.all("svg", class_="column")) == len(spec.features.names)


@pytest.mark.parametrize(
    ("labelled", "verdict"), [("undetermined", "undetermined"), ("ok", "ok"), ("degraded", "look")]
)
def test_slices_with_too_few_rows_are_not_said_to_be_ok(labelled: Any, verdict: str) -> None:
    made = make_decision("none")
    drift = made.drift.model_copy(update={"verdict": "undetermined"})
    few = SliceEvidence(column="city", value="Porto", rows=9, drift=drift, performance=scored(5.0, verdict=labelled))
    (fact,) = (fact for fact in facts_of(made.model_copy(update={"slices": (few,)}), "mae") if fact.what == "slices")
    assert fact.verdict == verdict
    assert f"1 watched, {int(labelled != 'undetermined')} with enough rows" in fact.text


def test_over_time_windows_without_enough_labels_are_hollow_and_versions_are_marked(tmp_path: Path) -> None:
    points = [_point("1", 5.0), _point("1", None), _point("2", 6.0, is_degraded=True), _point("2", 6.5)]
    picture = str(plot_over_time(points, metric="mae", limit=1.1))
    assert picture.count('class="point hollow"') == 1
    assert picture.count('class="point degraded"') == 1
    assert picture.count('class="point"') == 2
    assert picture.count('class="version"') == 1
    assert re.findall(r">(v\d)</text>", picture) == ["v1", "v2"]


def test_the_margin_is_as_high_as_the_spec_allows() -> None:
    picture = str(plot_over_time([_point("1", 5.0), _point("1", 4.0)], metric="mae", limit=1.2))
    (height,) = re.findall(r'class="margin".* height="([\d.]+)"', picture.split("/>")[_place(picture, "margin")])
    ticks = [
        (float(y), float(value)) for y, value in re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)</text>', picture)
    ]
    pixels = (ticks[0][0] - ticks[1][0]) / (ticks[1][1] - ticks[0][1])
    assert float(height) == pytest.approx(0.2 * 5.0 * pixels, abs=0.2)


@pytest.mark.parametrize(("metric", "factor"), [("mae", 1.21), ("rmse", 1.1)])
def test_the_margin_of_rmse_is_the_root_of_that_of_its_squared_loss(tmp_path: Path, metric: str, factor: float) -> None:
    decision = make_decision("none").model_copy(update={"performance": scored(5.0)})
    page = report(tmp_path, decision, policy=MonitorSpec(max_loss_increase=0.21), metric=metric)
    expected = str(plot_over_time([_point("1", 5.0)], metric=metric, limit=factor))
    (height,) = re.findall(r'class="margin"[^>]* height="([\d.]+)"', expected)
    assert f'height="{height}"' in page.source


def test_the_last_thirty_windows_are_listed_with_coverage_lag_and_reason_newest_first(tmp_path: Path) -> None:
    earlier = [
        make_decision("none", window=day).model_copy(
            update={"performance": scored(None if day == 39 else 5.0), "version": "1" if day < 35 else "2"}
        )
        for day in range(40)
    ]
    decision = make_decision("retrain", window=40).model_copy(update={"performance": scored(7.0), "version": "2"})
    page = report(tmp_path, decision, earlier=earlier)
    decisions = page.source.split("<h2>Decisions</h2>")[1].split("</table>")[0]
    ends = re.findall(r'<th scope="row">([\d-]+ [\d:]+)</th>', decisions)
    assert len(ends) == 30
    assert ends == sorted(ends, reverse=True)
    newest, before = decisions.split("<tr>")[2:4]
    assert "the loss rose and stays up" in newest
    assert "6.5 to 7.5" in newest
    assert "100%" in newest
    assert "2 h" in newest
    assert "20%" in before
    versions = page.source.split("<h2>Versions</h2>")[1]
    assert re.findall(r'<th scope="row">(v\d)</th>', versions) == ["v2", "v1"]


def test_the_estimate_is_drawn_with_its_note(tmp_path: Path) -> None:
    estimate = EstimatedPerformance(
        verdict="estimated",
        note="blind to a change of the concept",
        rows=100,
        estimate=0.4,
        low=0.3,
        high=0.5,
        baseline=0.35,
    )
    decisions = [make_decision("none", window=day).model_copy(update={"estimate": estimate}) for day in (0, 1)]
    page = report(tmp_path, decisions[1], earlier=decisions[:1])
    assert page.source.count('class="estimate dot"') == 2
    assert "blind to a change of the concept" in page.source
    assert "0.4 (0.3 to 0.5)" in page.source


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("drift", "inputs have drifted"),
        ("slice_drift_not_persistent", "a slice has drifted, in too few windows yet"),
        ("degradation_ignored", "the loss rose and stays up, which the spec ignores"),
        ("something_new", "something new"),
    ],
)
def test_reason_codes_are_said_in_words(code: str, words: str) -> None:
    assert reason_in_words(code) == words


def test_every_reason_code_of_the_policy_has_its_words() -> None:
    domain = Path(__file__).parents[2] / "everloop" / "domain"
    source = (domain / "signals.py").read_text() + (domain / "holding.py").read_text()
    codes = set(re.findall(r'(?:Signal|_standing|_reaction)\(\s*"(\w+)"', source))
    codes |= set(re.findall(r'\(\("(\w+)", evidence.quality\), \("(\w+)"', source)[0])
    assert {"growth", "data_quality", "breaker_open", "slice_drift", "not_restored", "back_off"} <= codes
    assert {code for code in codes if reason_in_words(code) == code.replace("_", " ")} == set()


def test_markdown_links_the_report_and_keeps_its_table_whole() -> None:
    reference = ProfileSummary(rows=2000, columns={"a|b": normal()})
    drift = compare_profiles(reference, ProfileSummary(rows=2000, columns={"a|b": normal(2.0, seed=1)}), min_rows=100)
    decision = make_decision("alert").model_copy(update={"drift": drift, "reason": "x | y\nz"})
    text = decision_markdown(decision, report_link="http://127.0.0.1/report.html")
    assert "(http://127.0.0.1/report.html)" in text
    assert "X \\| y z." in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert any(line.startswith("| a\\|b | distribution | 0.") for line in tables)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {4, 7}


def _point(version: str, metric: float | None, **changes: Any) -> WindowPoint:
    interval = {} if metric is None else {"low": metric - 0.5, "high": metric + 0.5}
    return WindowPoint(
        label="2024-03-01", version=version, action="none", title="t", metric=metric, baseline=5.0, coverage=1.0,
        **interval, **changes,
    )  # fmt: skip


def _heights(picture: str, kind: str) -> Sequence[float]:
    """The height of each step of a drawn distribution, 1 for the tallest the picture can hold."""
    (path,) = re.findall(rf'<path class="{kind}" d="([^"]+)"', picture)
    pairs = re.findall(r"L([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)", path)
    return [(108 - float(y)) / 100 for _, y, _, _ in pairs]


def _place(picture: str, kind: str) -> int:
    return next(place for place, part in enumerate(picture.split("/>")) if f'class="{kind}"' in part)
