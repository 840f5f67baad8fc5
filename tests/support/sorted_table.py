"""Indexes of TensorFlow's checkpoints by the rules of their format, with right checksums and any content."""

import struct


def varint(number: int) -> bytes:
    """Write a whole number; a negative one as the 64 bits of its complement."""
    number, parts = number % 2**64, b""
    while number >= 128:
        number, parts = number >> 7, parts + bytes([number & 127 | 128])
    return parts + bytes([number])


def message(number: int, content: bytes) -> bytes:
    """Write a field of a message that is a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(shape, size: int, dtype: int = 1) -> bytes:
    """Write what an index says about a variable."""
    sides = b"".join(message(2, varint(1 << 3) + varint(side)) for side in shape)
    return varint(1 << 3) + varint(dtype) + message(2, sides) + varint(5 << 3) + varint(size) + b"\x35" + bytes(4)


HEADER = (b"", varint(1 << 3) + varint(1) + message(3, varint(1 << 3) + varint(1)))
"""Name and entry of the whole: one shard."""


def table(entries) -> bytes:
    """Write a sorted table of names and entries."""
    content = b""

    def put(pairs):
        nonlocal content
        block = b"".join(varint(0) + varint(len(name)) + varint(len(value)) + name + value for name, value in pairs)
        block += struct.pack("<II", 0, 1)
        handle = varint(len(content)) + varint(len(block))
        content += block + b"\0" + struct.pack("<I", _masked(_crc32c(block + b"\0")))
        return handle

    data, others = put(entries), put([])
    footer = others + put([(entries[-1][0] + b"\xff", data)])
    return content + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def _crc32c(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _masked(value: int) -> int:
    return ((value >> 15 | value << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
