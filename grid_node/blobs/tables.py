"""Which rows still need which blobs."""

from sqlalchemy import PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base


class BlobReference(Base):
    """`owner` needs the blob `sha256`. Owners are ids of any feature: a lease id, an upload id."""

    __tablename__ = "blob_references"
    __table_args__ = (PrimaryKeyConstraint("sha256", "owner"),)

    sha256: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(64), index=True)
