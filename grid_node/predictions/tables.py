"""Rows of predictions. Money is whole cents, odds are whole ten-thousandths, so that every sum is exact.

A `miner` is the lower hex of a public key (64 digits), or `key:<id>` in a private grid.
"""

from sqlalchemy import BigInteger, Index, PrimaryKeyConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base


class Game(Base):
    """A game that miners may predict."""

    __tablename__ = "games"

    game_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team_a: Mapped[str] = mapped_column(String(200))
    team_b: Mapped[str] = mapped_column(String(200))
    sport: Mapped[str] = mapped_column(String(100))
    league: Mapped[str] = mapped_column(String(100))
    create_date: Mapped[float]
    last_update_date: Mapped[float]
    event_start_date: Mapped[float] = mapped_column(index=True)
    active: Mapped[bool]
    outcome: Mapped[int]
    """0 team A, 1 team B, 2 draw, 3 unfinished."""
    team_a_odds: Mapped[int]
    team_b_odds: Mapped[int]
    tie_odds: Mapped[int | None]
    can_tie: Mapped[bool]
    settled: Mapped[bool] = mapped_column(default=True, index=True)
    """False from a final outcome until every accepted prediction has its settlement."""


class GameLog(Base):
    """One row: the epoch of the update log and its newest seq."""

    __tablename__ = "game_log"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(16))
    seq: Mapped[int] = mapped_column(BigInteger)


class GameUpdate(Base):
    """One entry of the update log: `games` is JSON, {game_id: what changed}."""

    __tablename__ = "game_updates"
    __table_args__ = (PrimaryKeyConstraint("epoch", "seq"), {"sqlite_with_rowid": False})

    epoch: Mapped[str] = mapped_column(String(16))
    seq: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    at: Mapped[float]
    games: Mapped[str] = mapped_column(Text)


class MinerPrediction(Base):
    """A prediction that got a verdict, and its receipt as it was signed."""

    __tablename__ = "miner_predictions"
    __table_args__ = (
        PrimaryKeyConstraint("miner", "prediction_id"),
        Index("uq_miner_predictions_seq", "miner", "seq", unique=True),
        Index("ix_miner_predictions_game", "game_id", "accepted", "received_at"),
    )

    miner: Mapped[str] = mapped_column(String(72))
    prediction_id: Mapped[str] = mapped_column(String(128))
    seq: Mapped[int] = mapped_column(BigInteger)
    """1, 2, 3 of this miner, in commit order, rejections included."""
    game_id: Mapped[str] = mapped_column(String(64))
    accepted: Mapped[bool]
    code: Mapped[str] = mapped_column(String(32))
    wager: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[int | None]
    accepted_odds: Mapped[int | None]
    """The three are null in a rejection."""
    received_at: Mapped[float] = mapped_column(index=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    """The canonical form of `prediction` as the miner sent it."""
    receipt: Mapped[str] = mapped_column(Text)
    """The canonical form of the signed confirmation: a repeat gets these very bytes."""


class MinerSeq(Base):
    """The newest receipt of a miner."""

    __tablename__ = "miner_seq"

    miner: Mapped[str] = mapped_column(String(72), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)


class MinerDailyWager(Base):
    """What a miner has wagered in one UTC day, in accepted predictions."""

    __tablename__ = "miner_daily_wagers"
    __table_args__ = (PrimaryKeyConstraint("miner", "utc_day"), {"sqlite_with_rowid": False})

    miner: Mapped[str] = mapped_column(String(72))
    utc_day: Mapped[str] = mapped_column(String(10))
    wagered: Mapped[int] = mapped_column(BigInteger)
    accepted: Mapped[int]


class Settlement(Base):
    """What an accepted prediction came to once its game had a final outcome."""

    __tablename__ = "settlements"
    __table_args__ = (PrimaryKeyConstraint("miner", "prediction_id"), {"sqlite_with_rowid": False})

    miner: Mapped[str] = mapped_column(String(72))
    prediction_id: Mapped[str] = mapped_column(String(128))
    game_id: Mapped[str] = mapped_column(String(64), index=True)
    outcome: Mapped[int]
    payout: Mapped[int] = mapped_column(BigInteger)
    settled_at: Mapped[float]
