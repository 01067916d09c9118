"""A message of the spec names the file, the key, what was found and what is allowed; one line a mistake."""

from __future__ import annotations

import pytest

from everloop.domain.errors import SpecError
from everloop.domain.spec import parse_spec
from tests.domain.examples import TIPS

ORIGIN = "models/tips/model.toml"


def message_of(old: str, new: str) -> str:
    assert TIPS.count(old) == 1, f"{old!r} must stand once in the example"
    with pytest.raises(SpecError) as caught:
        parse_spec(TIPS.replace(old, new), origin=ORIGIN)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'kind = "regression"',
            'kind = "reg"',
            "kind is 'reg'; input should be 'regression', 'binary' or 'multiclass'",
        ),
        ('name = "tips"', 'name = "Tips"', "name is 'Tips'; string should match pattern '^[a-z][a-z0-9-]{0,62}$'"),
        ('target = "tip"', "", "target is missing; add it (see docs/spec.md)"),
        ("worst_allowed = 2.5", "worst_allowed = nan", "gates.worst_allowed is nan; input should be a finite number"),
        ('cooldown = "6h"', "cooldown = 6", "monitor.cooldown is 6; input should be a valid string"),
        (
            "trials = 3",
            "trails = 3",
            "search.trails is not a known key; allowed here: trials, validation_share, seed, candidates",
        ),
        (
            'cooldown = "6h"',
            'cooldown = "6x"',
            "monitor.cooldown: '6x' is not a duration; write a whole number above 0 and a unit: 90s, 30m, 6h, 7d or 2w",
        ),
        (
            '"2 of 3"',
            '"3 of 2"',
            "monitor.persistence: '3 of 2' is not a persistence; "
            "write 'n of m' with 1 <= n <= m <= 20, for example '2 of 3'",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_file_and_what_is_allowed(old: str, new: str, expected: str) -> None:
    assert message_of(old, new) == f"{ORIGIN}: {expected}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"tips.csv"', '"sqlite:///a.db"', 'data: a database URL needs a query; add query = "select …" under [data]'),
        ('"all"', "[]", "data: history is an empty list; name at least one, for example 'all'"),
        (
            '["day"]\n[features.ranges]',
            '["size"]\n[features.ranges]',
            "features: size is listed more than once; name each feature once",
        ),
        ("bill = [0, 500]", "day = [0, 6]", "features: ranges.day is not a numeric feature; allowed: bill, size"),
        ("[0, 500]", "[5, 5]", "features: ranges.bill is [5.0, 5.0]; the first number must be below the second"),
        (
            'target = "tip"',
            'target = "bill"',
            "the spec: 'bill' is the target and a feature; take it out of [features]",
        ),
        ('"paid_at"', '"size"', "the spec: 'size' is the time and a feature; take it out of [features]"),
        ('"paid_at"', '"t"\nkey = "day"', "the spec: 'day' is the key and a feature; take it out of [features]"),
        ('"mae"', '"brier"', "the spec: gates.metric is 'brier'; for kind 'regression' allowed: mae, rmse"),
        (
            'slices = ["day"]',
            'slices = ["sex"]',
            "the spec: gates.slices names 'sex', which is not a feature; allowed: bill, size, day",
        ),
        (
            "holdout_rows = 200",
            "holdout_rows = 50",
            "the spec: gates.min_holdout_rows = 100 is above holdout_rows = 50",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named_together(old: str, new: str, expected: str) -> None:
    assert message_of(old, new) == f"{ORIGIN}: {expected}"


def test_a_spec_needs_a_feature() -> None:
    without = TIPS[TIPS.index("[features]") : TIPS.index("[search]")]
    assert message_of(without, "[features]\n").endswith(
        "features: no feature is named; list at least one under numeric or categorical"
    )


def test_every_candidate_gets_a_trial() -> None:
    second = '[[search.candidates]]\nestimator = "sklearn.linear_model.ElasticNet"\n'
    assert "search.trials = 1 for 2 candidates on 1 histories; allow at least 2, one for each pair" in message_of(
        "trials = 3", f"trials = 1\n{second}"
    )


def test_an_estimator_of_another_kind_is_answered_with_the_allowed_ones() -> None:
    message = message_of("linear_model.Ridge", "ensemble.RandomForestClassifier")
    assert message.startswith(
        f"{ORIGIN}: the spec: search.candidates.0.estimator is 'sklearn.ensemble.RandomForestClassifier'; "
        "for kind 'regression' allowed: sklearn.ensemble.HistGradientBoostingRegressor, "
    )
    assert message.endswith("sklearn.linear_model.PoissonRegressor")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"all"', '"90d"', "data.history names the span '90d' but there is no time column"),
        ("[monitor]", '[monitor]\ntime_parts = ["hour"]', "monitor.time_parts is set but there is no time column"),
        ("{ rows = 500 }", '{ span = "1d" }', "monitor.window is a span but there is no time column"),
    ],
)
def test_spans_need_a_time_column(old: str, new: str, expected: str) -> None:
    timeless = TIPS.replace('time = "paid_at"', "").replace("[features]", "include_served = false\n[features]")
    with pytest.raises(SpecError, match=f"^{ORIGIN}: the spec: {expected}; set time, or"):
        parse_spec(timeless.replace(old, new), origin=ORIGIN)


def test_every_mistake_is_reported_on_its_own_line() -> None:
    text = TIPS.replace("trials = 3", "trials = 0").replace("worst_allowed = 2.5", "worst_allowed = -1")
    with pytest.raises(SpecError) as caught:
        parse_spec(text, origin=ORIGIN)
    assert [line.split(";")[0] for line in str(caught.value).splitlines()] == [
        f"{ORIGIN}: search.trials is 0",
        f"{ORIGIN}: gates.worst_allowed is -1",
    ]


def test_what_is_no_toml_is_named_with_its_line() -> None:
    assert (
        message_of('name = "tips"', "name = tips")
        == f"{ORIGIN}: not valid TOML: Invalid value (at line 2, column 8); correct the file"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{ rows = 500 }", "{ rows = 5 }", "monitor.window.rows is 5; input should be greater than or equal to 50"),
        (
            "{ low = 0.1, high = 10, log = true }",
            "{ low = 2, high = 1 }",
            "search.candidates.0.alpha: low = 2 is not below high = 1",
        ),
        (
            "{ low = 0.1, high = 10, log = true }",
            "{ low = 0, high = 1, log = true }",
            "search.candidates.0.alpha: low = 0 with log = true; a logarithmic range starts above 0",
        ),
        ('["auto", "svd"]', "[]", "search.candidates.0: solver is an empty list; name at least one value"),
        (
            '"all"',
            '"90x"',
            "data.history: '90x' is not a duration; write a whole number above 0 and a unit: 90s, 30m, 6h, 7d or 2w; "
            "or write 'all', or a share of the rows from '1%' to '99%'",
        ),
    ],
)
def test_a_mistake_in_one_form_of_a_value_makes_one_line(old: str, new: str, expected: str) -> None:
    assert message_of(old, new) == f"{ORIGIN}: {expected}"


@pytest.mark.parametrize("line", ['time = "tip"', 'time = "paid_at"\nkey = "tip"'])
def test_the_target_is_neither_time_nor_key(line: str) -> None:
    assert "the spec:" in message_of('time = "paid_at"', line)


def test_the_absolute_bar_is_a_finite_number() -> None:
    assert "gates.worst_allowed is inf" in message_of("worst_allowed = 2.5", "worst_allowed = inf")
