"""Rows of the durable update streams."""

from sqlalchemy import BigInteger, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base

RowId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the primary key is declared as INTEGER."""


class StreamEntry(Base):
    """One fact of one stream. `seq` starts at 1 and has no gaps; `id` orders the facts of all streams."""

    __tablename__ = "stream_entries"
    __table_args__ = (UniqueConstraint("stream", "seq"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    stream: Mapped[str] = mapped_column(String(200))
    seq: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[float] = mapped_column(index=True)
    body: Mapped[str] = mapped_column(Text)
