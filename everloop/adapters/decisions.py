"""The decision store: every decision about a window, and who acts on it.

One row a decision in a SQL table. A fired decision is claimed by one run at a time: the claim is a lease that the
holder renews, so a decision whose holder died can be taken over, and one that is finished never runs again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from everloop.domain.decision import Past, RetrainingDecision, decision_id
from everloop.domain.errors import DecisionTaken, EverloopError
from everloop.domain.windows import Window

log = logging.getLogger("everloop.decisions")

_metadata = sa.MetaData()
_table = sa.Table(
    "decisions",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("window_end", sa.String, nullable=False),
    sa.Column("window_id", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("fired_at", sa.DateTime),
    sa.Column("claimed_by", sa.String),
    sa.Column("renewed_at", sa.DateTime),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("outcome", sa.String),
    sa.Column("released", sa.Boolean, nullable=False, default=False),
    sa.Column("acknowledged_by", sa.String),
    sa.Column("published", sa.Boolean, server_default=sa.false()),
    sa.Column("rejected", sa.Boolean, server_default=sa.false()),
    sa.Column("place", sa.String),
    sa.Column("window_start", sa.String),
    sa.Column("labelled_rows", sa.Integer),
    sa.Column("trained", sa.Boolean, server_default=sa.false()),
)
_told = sa.Table(
    "told",
    _metadata,
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("about", sa.String, primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False),
)
_RECENT, _SETTLED = 200, 25
_TOLD_KEPT = timedelta(days=90)
# what became of a decision: columns, not part of its body
_ACTED = {"outcome", "acknowledged_by"}
_FLAGS = {"trained", "released", "rejected", "published"}  # an earlier version's rows may have none
_DIALECTS: dict[str, Any] = {"sqlite": sqlite, "postgresql": postgresql}


class DecisionStore:
    """Stored decisions; safe for any number of processes."""

    def __init__(self, url: str, *, lease: timedelta) -> None:
        self._lease = lease
        dialect = _dialect_of(url)
        self._insert = _DIALECTS[dialect].insert
        self._engine = sa.create_engine(url, **({"connect_args": {"timeout": 30}} if dialect == "sqlite" else {}))
        with self._engine.begin() as connection:
            for table in (_table, _told):
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            _add_missing_columns(connection)

    def store(self, decision: RetrainingDecision) -> bool:
        """Keep `decision`; True if this call made it fire, which happens at most once for each id.

        A decision that has fired is never overwritten.
        """
        fires = decision.action == "retrain"
        values = {
            "model": decision.model,
            "window_end": decision.window.end,
            "window_id": decision.window.id,
            "action": decision.action,
            "body": decision.model_dump_json(exclude=_ACTED | _FLAGS),
            "fired_at": _now() if fires else None,
            "published": False,
            "place": decision.window.last,
            "window_start": decision.window.start,
            "labelled_rows": decision.labelled_rows,
        }
        insert = self._insert(_table).values(id=decision.id, attempts=0, released=False, **values)
        upsert = insert.on_conflict_do_update(index_elements=["id"], set_=values, where=_table.c.fired_at.is_(None))
        with self._engine.begin() as connection:
            return bool(connection.execute(upsert).rowcount) and fires

    def list(self, model: str) -> Sequence[RetrainingDecision]:
        """Every decision about `model`, oldest window first."""
        query = sa.select(_table).where(_table.c.model == model).order_by(_table.c.window_end, _table.c.window_id)
        with self._engine.connect() as connection:
            return [_decision(row) for row in connection.execute(query)]

    def history(self, model: str, *, before: Window | None = None) -> Sequence[RetrainingDecision]:
        """What the policy and a report look back on, oldest window first: the newest decisions, and the newest that fired.

        With `before`, only decisions about windows before that one: row windows in the order of capture, others by their end.
        """
        chosen, order = [_table.c.model == model], (_table.c.window_end, _table.c.window_id)
        if before is not None and before.before is not None:
            order = (_table.c.place, _table.c.window_id)
            chosen.append(_table.c.place < before.last)
        elif before is not None:
            chosen += [_table.c.window_end <= before.end, _table.c.window_id != before.id]
        newest = sa.select(_table.c.id).where(*chosen).order_by(*(column.desc() for column in order)).limit(_RECENT)
        return self._decisions(newest, newest.where(_table.c.fired_at.is_not(None)), order=order)

    def past(self, model: str, window: Window) -> Past:
        """What a decision about `window` goes by."""
        return Past(self.history(model, before=window), self.fired(model, besides=decision_id(model, window)))

    def fired(self, model: str, *, besides: str = "") -> Sequence[RetrainingDecision]:
        """The newest decisions that started a retraining, oldest window first, but for the one with the id `besides`."""
        chosen = (_table.c.model == model, _table.c.id != besides, _table.c.fired_at.is_not(None))
        newest_first = (_table.c.window_end.desc(), _table.c.window_id.desc())
        return self._decisions(sa.select(_table.c.id).where(*chosen).order_by(*newest_first).limit(_RECENT))

    def served_since(self, model: str, moment: datetime) -> Sequence[RetrainingDecision]:
        """Every decision about a window whose newest row was served since `moment`, and some that were settled before them.

        In the order of capture: what is not among them lies before all of them.
        """
        edge = f"{moment:%Y-%m-%dT%H:%M:%S.%f}"
        placed = sa.select(_table.c.id).where(_table.c.model == model, _table.c.place.is_not(None))
        settled = placed.where(_table.c.place < edge).order_by(_table.c.place.desc()).limit(_SETTLED)
        return self._decisions(
            placed.where(_table.c.place >= edge), settled, order=(_table.c.place, _table.c.window_id)
        )

    def labelled_between(self, model: str, start: str, end: str, *, besides: str) -> int:
        """The labelled rows of all windows that began after `start` and ended by `end` (ISO event time), but for that of `besides`."""
        query = sa.select(sa.func.coalesce(sa.func.sum(_table.c.labelled_rows), 0)).where(
            _table.c.model == model,
            _table.c.window_start > start,
            _table.c.window_end <= end,
            _table.c.id != besides,
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def count_labelled(self, decision: str, labelled: int) -> None:
        """Afterwards the window of `decision` counts for so many labelled rows, although it is not judged again."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_table).where(_table.c.id == decision).values(labelled_rows=labelled))

    def _decisions(
        self, *chosen: sa.Select[Any], order: Sequence[Any] = (_table.c.window_end, _table.c.window_id)
    ) -> Sequence[RetrainingDecision]:
        query = sa.select(_table).where(sa.or_(*(_table.c.id.in_(ids) for ids in chosen))).order_by(*order)
        with self._engine.connect() as connection:
            return [_decision(row) for row in connection.execute(query)]

    def acknowledge(self, model: str, by: str) -> int:
        """How many rejected challengers `by` has now looked at: they hold no retraining back any more."""
        update = (
            sa.update(_table)
            .where(
                _table.c.model == model,
                _table.c.fired_at.is_not(None),
                _table.c.rejected.is_(True),
                _table.c.acknowledged_by.is_(None),
            )
            .values(acknowledged_by=by)
        )
        with self._engine.begin() as connection:
            return int(connection.execute(update).rowcount)

    def mark_published(self, decision: str) -> None:
        """Afterwards the decision counts as said to people: its event, its run in MLflow and its report are out."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_table).where(_table.c.id == decision).values(published=True))

    def is_told(self, model: str, about: str) -> bool:
        """True if a person was told `about` this, apart from any window."""
        query = sa.select(_told.c.at).where(_told.c.model == model, _told.c.about == about)
        with self._engine.connect() as connection:
            return connection.execute(query).one_or_none() is not None

    def mark_told(self, model: str, about: str) -> None:
        """Afterwards a person counts as told; what was told 90 days ago is forgotten."""
        insert = self._insert(_told).values(model=model, about=about, at=_now()).on_conflict_do_nothing()
        with self._engine.begin() as connection:
            connection.execute(insert)
            connection.execute(sa.delete(_told).where(_told.c.at < _now() - _TOLD_KEPT))

    def get(self, decision: str) -> RetrainingDecision:
        """The stored decision with this id.

        Raises:
            EverloopError: there is none.
        """
        found = self.find(decision)
        if found is None:
            raise EverloopError(
                f"decision {decision!r} is not stored in {self._engine.url!r}; `everloop decisions` lists those that are"
            )
        return found

    def find(self, decision: str) -> RetrainingDecision | None:
        """The stored decision with this id, None if there is none."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_table).where(_table.c.id == decision)).one_or_none()
        return None if row is None else _decision(row)

    def fired_at(self, decision: str) -> datetime:
        """When a fired decision was stored.

        Raises:
            EverloopError: it is not stored, or has not fired.
        """
        with self._engine.connect() as connection:
            moment: datetime | None = connection.execute(
                sa.select(_table.c.fired_at).where(_table.c.id == decision)
            ).scalar_one_or_none()
        if moment is None:
            raise EverloopError(f"decision {decision!r} has not fired")
        return moment.replace(tzinfo=UTC)

    def claim(self, decision: str, by: str) -> None:
        """Afterwards `by` holds the decision.

        Raises:
            DecisionTaken: another run holds it, or it is finished.
            EverloopError: it is not stored.
        """
        free = sa.or_(
            _table.c.claimed_by.is_(None), _table.c.renewed_at < _now() - self._lease, _table.c.claimed_by == by
        )
        update = (
            sa.update(_table)
            .where(_table.c.id == decision, _table.c.fired_at.is_not(None), _table.c.outcome.is_(None), free)
            .values(claimed_by=by, renewed_at=_now(), attempts=_table.c.attempts + 1)
        )
        with self._engine.begin() as connection:
            taken = connection.execute(update).rowcount
        if not taken:
            found = self.get(decision)
            if found.action != "retrain":
                raise EverloopError(
                    f"decision {decision} has not fired (it says {found.action}); train on demand without it"
                )
            state = f"finished: {found.outcome}" if found.outcome else "held by another run"
            raise DecisionTaken(
                f"decision {decision} is {state}; one decision starts one retraining, so this run stops here"
            )

    def renew(self, decision: str, by: str) -> bool:
        """True if `by` still holds the decision; its lease then starts anew."""
        update = (
            sa.update(_table)
            .where(_table.c.id == decision, _table.c.claimed_by == by, _table.c.outcome.is_(None))
            .values(renewed_at=_now())
        )
        with self._engine.begin() as connection:
            return bool(connection.execute(update).rowcount)

    def finish(
        self,
        decision: str,
        by: str,
        outcome: str,
        *,
        trained: bool = False,
        released: bool = False,
        rejected: bool = False,
    ) -> bool:
        """Afterwards the decision has an outcome; False if `by` does not hold it any more.

        `trained` says that there is a challenger, `released` that it went live, `rejected` that the gates refused it.
        """
        update = (
            sa.update(_table)
            .where(_table.c.id == decision, _table.c.claimed_by == by, _table.c.outcome.is_(None))
            .values(outcome=outcome, trained=trained, released=released, rejected=rejected)
        )
        with self._engine.begin() as connection:
            return bool(connection.execute(update).rowcount)

    def mark_released(self, decision: str) -> None:
        """Afterwards the finished decision counts as one that led to a release: a person has let its version go live."""
        update = sa.update(_table).where(_table.c.id == decision, _table.c.outcome.is_not(None)).values(released=True)
        with self._engine.begin() as connection:
            connection.execute(update)

    def give_up(self, decision: str, outcome: str) -> bool:
        """Afterwards the decision has an outcome, if no living run holds it; True if this call gave it."""
        dead = sa.or_(_table.c.claimed_by.is_(None), _table.c.renewed_at < _now() - self._lease)
        update = (
            sa.update(_table).where(_table.c.id == decision, _table.c.outcome.is_(None), dead).values(outcome=outcome)
        )
        with self._engine.begin() as connection:
            return bool(connection.execute(update).rowcount)

    def forgotten(self, model: str, *, older_than: timedelta) -> Sequence[tuple[str, int]]:
        """Fired decisions on which nobody works, with the number of runs that claimed them so far.

        Unclaimed for longer than `older_than`, or claimed by a run whose lease has ended.
        """
        now = _now()
        nobody = sa.or_(
            sa.and_(_table.c.claimed_by.is_(None), _table.c.fired_at <= now - older_than),
            _table.c.renewed_at < now - self._lease,
        )
        query = sa.select(_table.c.id, _table.c.attempts).where(
            _table.c.model == model, _table.c.fired_at.is_not(None), _table.c.outcome.is_(None), nobody
        )
        with self._engine.connect() as connection:
            return [(row.id, row.attempts) for row in connection.execute(query)]

    @contextmanager
    def holding(self, decision: str, by: str) -> Iterator[None]:
        """While the block runs, the lease on the claimed decision is renewed from a thread."""
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(self._lease.total_seconds() / 6):
                try:
                    if not self.renew(decision, by):
                        log.warning("%s has lost decision %s", by, decision)
                        return
                except sa.exc.SQLAlchemyError:
                    log.exception("the lease on %s could not be renewed; trying again", decision)

        thread = threading.Thread(target=keep, name=f"lease {decision}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _decision(row: sa.Row[Any]) -> RetrainingDecision:
    found = RetrainingDecision.model_validate_json(row.body)
    acted = {name: getattr(row, name) for name in _ACTED}
    return found.model_copy(update=acted | {name: bool(getattr(row, name)) for name in _FLAGS})


def _add_missing_columns(connection: sa.Connection) -> None:
    """Bring a table that an earlier version made up to date; its rows stay."""
    known = {column["name"] for column in sa.inspect(connection).get_columns(_table.name)}
    for column in _table.columns:
        if column.name not in known:
            kind = column.type.compile(connection.dialect)
            connection.execute(sa.text(f"alter table {_table.name} add column {column.name} {kind}"))
            if column.name == "published":
                connection.execute(sa.update(_table).values(published=True))  # the earlier version had said them all
            if column.name == "trained":  # the earlier version told the others by how their outcomes begin
                none = sa.or_(_table.c.outcome.startswith("refused"), _table.c.outcome.startswith("given up"))
                made = sa.and_(_table.c.outcome.is_not(None), sa.not_(none))
                connection.execute(sa.update(_table).where(made).values(trained=True))


def _dialect_of(url: str) -> str:
    """The database that `url` names.

    Raises:
        EverloopError: it is no SQLAlchemy URL, or of a database that is not supported.
    """
    try:
        name = sa.make_url(url).get_backend_name()
    except sa.exc.ArgumentError:
        name = url
    if name not in _DIALECTS:
        raise EverloopError(f"EVERLOOP_DATABASE_URL names {name}; use sqlite:///… or postgresql+psycopg://…")
    return name


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
