"""Rows of uploads. An offset is no column: the length of the partial file is the truth."""

from sqlalchemy import BigInteger, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base

RECEIVING = "receiving"
CHECKING = "checking"
STORED = "stored"
PUBLISHED = "published"
REJECTED = "rejected"


class Upload(Base):
    """One upload of one owner.

    receiving → checking (all bytes are there, `sha256` is known) → stored or published | rejected.
    """

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "kind", "owner"), Index(None, "sha256"), Index(None, "expires_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    owner: Mapped[str]
    length: Mapped[int] = mapped_column(BigInteger)
    """Bytes announced at creation."""
    state: Mapped[str] = mapped_column(default=RECEIVING)
    upload_metadata: Mapped[str] = mapped_column(Text, default="")
    """The Upload-Metadata header as it was sent."""
    unverified_from: Mapped[int | None] = mapped_column(BigInteger)
    """While a piece with a checksum comes in: the offset it began at. Bytes from there on do not count."""
    sha256: Mapped[str | None]
    answer: Mapped[str | None] = mapped_column(Text)
    """JSON: what the target said about the whole, `fields` or `error`."""
    created_at: Mapped[float]
    expires_at: Mapped[float]
    taken_at: Mapped[float | None]
    """When another row first took over the blob; it no longer counts as open from then on."""
