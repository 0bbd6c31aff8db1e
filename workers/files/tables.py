"""SQL tables of files and of the jobs that read them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Float, Index, Integer, LargeBinary, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class File(Base):
    """Bytes of a client in the store: an upload under its id, or a result in parts.

    Written once; but for a result, of which more counts with every chunk that is done.
    """

    __tablename__ = "files"
    __table_args__ = (Index("files_by_client", "client_id", "created_at"), Index("files_by_expiry", "expires_at"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    client_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    format: Mapped[str] = mapped_column(String(32))
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)  # SHA-256; of a result, once it is whole
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    expires_at: Mapped[int] = mapped_column(BigInteger)
    parts: Mapped[str | None] = mapped_column(Text)  # a result's, as JSON: name, segments, bytes, bytes in the store


class Batch(Base):
    """How far a job of kind `file` is: what was read, what was written, and where both go on."""

    __tablename__ = "batches"
    __table_args__ = (Index("batches_by_input", "input_file"), Index("batches_by_output", "output_file"))

    job: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    input_file: Mapped[str] = mapped_column(String(40))
    output_file: Mapped[str] = mapped_column(String(40))
    # Whether the input came with the job, and goes with it.
    owns_input: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    checkpoint: Mapped[str | None] = mapped_column(Text)  # the format's own, as JSON; behind the youngest chunk
    read_rows: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    whole: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())  # read to its end
    written_rows: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    failed_rows: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    failed_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of OpenAI's batches alone
    rows_per_second: Mapped[float | None] = mapped_column(Float)
    # Of one that was made as OpenAI's: the address that each line names, and what its maker wrote on it, as JSON.
    endpoint: Mapped[str | None] = mapped_column(String(512))
    notes: Mapped[str | None] = mapped_column(Text)
