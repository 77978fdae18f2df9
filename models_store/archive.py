"""Zip archives as torch writes them, and no others.

A reader of zip files believes the table at the end; what else is in the file, several readers understand in several
ways. So here an archive must be nothing but its entries one after the other from the first byte, the table, the
zip64 end record and the end record. (PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16.)
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from models_store.errors import InvalidModel

ENTRIES_MAX = 100_000
TABLE_MAX = 32 * 1024 * 1024
STORED, DEFLATED = 0, 8
BEGINNING = b"PK\3\4"
"""With which every archive that has an entry begins."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_EXTRA_64 = 1
_FULL = 0xFFFFFFFF
_DESCRIPTOR, _UTF8 = 1 << 3, 1 << 11
_DESCRIPTOR_BYTES = (12, 16, 20, 24)
_ROOT = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_NAME = re.compile(r"[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*")
_NAME_MAX = 1024


class Entry(NamedTuple):
    """`name` includes the root folder. `start`: offset of the data; `record`: offset of its record in the table."""

    name: str
    method: int
    packed_size: int
    size: int
    start: int
    record: int


class _Record(NamedTuple):
    name: bytes
    flags: int
    method: int
    packed_size: int
    size: int
    offset: int
    record: int


@dataclass(frozen=True)
class Archive:
    """`entries` by name without the root folder."""

    entries: dict[str, Entry]

    def content(self, file: BinaryIO, name: str, most: int) -> bytes:
        """The bytes of a stored entry. Raises InvalidModel, also when it is not there or larger than `most`."""
        entry = self.entries.get(name)
        if entry is None:
            raise InvalidModel(f"the archive lacks {name}")
        if entry.size > most:
            raise InvalidModel(f"{name} is larger than {most} bytes")
        file.seek(entry.start)
        content = file.read(entry.packed_size)
        if entry.method != STORED or len(content) != entry.size:
            raise InvalidModel(f"{name} does not have its size")
        return content

    def check_inflates(self, file: BinaryIO, entry: Entry) -> None:
        """A compressed entry yields exactly what the table says. Takes memory for `entry.size` bytes."""
        file.seek(entry.start)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflate.decompress(file.read(entry.packed_size), entry.size + 1)
        except zlib.error:
            content = b""
        if len(content) != entry.size or not inflate.eof or inflate.unused_data:
            raise InvalidModel("an entry of the archive does not have its size")


def read(file: BinaryIO, size: int) -> Archive:
    """The entries of a file of `size` bytes; of their data nothing is read. Raises InvalidModel."""
    start, length, count = _table(file, size)
    file.seek(start)
    records = [*_records(file.read(length), start)]
    if len(records) != count:
        raise InvalidModel("the archive's end records disagree")
    return Archive(_by_name(_entries(file, records, start)))


def _table(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Offset, length and number of records of the table at the end."""
    place = size - _END.size
    end = _unpack(_END, file, place)
    if end[0] != b"PK\5\6" or end[7] != 0:
        raise InvalidModel("the file does not end as an archive")
    found = [end[1], end[2], *end[3:7]]
    if place >= _LOCATOR.size + _END_64.size:
        locator = _unpack(_LOCATOR, file, place - _LOCATOR.size)
        if locator[0] == b"PK\6\7":
            place -= _LOCATOR.size + _END_64.size
            found = _end_64(file, place, locator, found)
    disk, table_disk, count_here, count, length, start = found
    if (disk, table_disk) != (0, 0) or count_here != count or start + length != place:
        raise InvalidModel("the archive's end records disagree")
    if count > ENTRIES_MAX or length > TABLE_MAX:
        raise InvalidModel("the archive has too many entries")
    return start, length, count


def _end_64(file: BinaryIO, place: int, locator: tuple[Any, ...], short: list[int]) -> list[int]:
    """The zip64 end record; where the short one holds numbers of its own, they must be the same."""
    record = _unpack(_END_64, file, place)
    long = [*record[4:10]]
    agree = all(
        said in (meant, full)
        for said, meant, full in zip(short, long, (0, 0, 0xFFFF, 0xFFFF, _FULL, _FULL), strict=True)
    )
    if not agree or record[0] != b"PK\6\6" or record[1] != _END_64.size - 12 or locator[1:] != (0, place, 1):
        raise InvalidModel("the archive's end records disagree")
    return long


def _records(table: bytes, start: int) -> Iterator[_Record]:
    place = 0
    while place < len(table):
        if len(table) - place < _CENTRAL.size:
            raise InvalidModel("the archive's table is damaged")
        field = _CENTRAL.unpack_from(table, place)
        name_end = place + _CENTRAL.size + field[10]
        extra_end = name_end + field[11]
        # no comment, one disk
        if field[0] != b"PK\1\2" or field[12] or field[13] or extra_end > len(table):
            raise InvalidModel("the archive's table is damaged")
        size, packed_size, offset = _long((field[9], field[8], field[16]), table[name_end:extra_end])
        name = table[place + _CENTRAL.size : name_end]
        yield _Record(name, field[3], field[4], packed_size, size, offset, start + place)
        place = extra_end


def _long(short: tuple[int, int, int], extra: bytes) -> tuple[int, ...]:
    """Size, packed size and offset, from the zip64 extra field where the short ones are full."""
    wanted = sum(value == _FULL for value in short)
    if not extra and not wanted:
        return short
    head = struct.pack("<2H", _EXTRA_64, 8 * wanted)
    if not wanted or len(extra) != 4 + 8 * wanted or not extra.startswith(head):
        raise InvalidModel("the archive's table is damaged")
    long = iter(struct.unpack(f"<{wanted}Q", extra[4:]))
    return tuple(next(long) if value == _FULL else value for value in short)


def _entries(file: BinaryIO, records: list[_Record], table: int) -> Iterator[Entry]:
    """In the order of the file, each beginning where the one before ends, the first at 0, the last up to the table."""
    place = 0
    may_be: tuple[int, ...] = (0,)
    for record in sorted(records, key=lambda one: one.offset):
        if record.offset - place not in may_be:
            raise InvalidModel("the archive has bytes that belong to no entry")
        start = _data_start(file, record)
        yield Entry(record.name.decode("latin-1"), record.method, record.packed_size, record.size, start, record.record)
        place = start + record.packed_size
        may_be = _DESCRIPTOR_BYTES if record.flags & _DESCRIPTOR else (0,)
    if table - place not in may_be:
        raise InvalidModel("the archive has bytes that belong to no entry")


def _data_start(file: BinaryIO, record: _Record) -> int:
    local = _unpack(_LOCAL, file, record.offset)
    name = file.read(len(record.name))
    same = (local[0], local[2], local[3], local[9], name)
    if same != (BEGINNING, record.flags, record.method, len(record.name), record.name):
        raise InvalidModel("an entry of the archive is not what its table says")
    if record.flags & ~(_DESCRIPTOR | _UTF8) or record.method not in (STORED, DEFLATED):
        raise InvalidModel("an entry of the archive is packed in a way that torch does not use")
    if record.method == STORED and record.packed_size != record.size:
        raise InvalidModel("an entry of the archive does not have its size")
    return record.offset + _LOCAL.size + len(record.name) + local[10]


def _by_name(entries: Iterator[Entry]) -> dict[str, Entry]:
    """Under one root folder, without it. torch finds entries whatever their case, so that must not matter."""
    found: dict[str, Entry] = {}
    roots = set()
    names = []
    for entry in entries:
        root, _, name = entry.name.partition("/")
        is_odd = not _ROOT.fullmatch(root) or not _NAME.fullmatch(name) or ".." in entry.name.split("/")
        if is_odd or len(entry.name) > _NAME_MAX:
            raise InvalidModel("the archive has a file with a name that torch does not use")
        roots.add(root)
        names.append(name.lower())
        found[name] = entry
    if len(roots) != 1 or len(set(names)) != len(names):
        raise InvalidModel("the archive has several roots, or one name twice")
    return found


def _unpack(record: struct.Struct, file: BinaryIO, place: int) -> tuple[Any, ...]:
    if place < 0:
        raise InvalidModel("the file is too short for an archive")
    file.seek(place)
    content = file.read(record.size)
    if len(content) != record.size:
        raise InvalidModel("the archive is cut short")
    return record.unpack(content)
