"""A filter in the kernel that keeps strangers' packets from an RTP socket: a flood must not fill its buffer.

A classic BPF program of six to twelve steps (Linux, socket(7): SO_ATTACH_FILTER) lets through what comes from one
address and port. Where the system has no such thing, strangers are told apart after they were read, as before.
"""

import ctypes
import ipaddress
import socket
import struct
from contextlib import suppress

from bridge.rtp.latch import Address

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
"""Linux; the socket module has no names for them."""

_NETWORK_HEADER = 0xFFF0_0000
"""SKF_NET_OFF: loads from here on count from the IP header, all others from the UDP header."""
_LOAD_WORD, _LOAD_HALF, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06
_WHOLE, _NOTHING = 0xFFFF_FFFF, 0

_instruction = struct.Struct("=HBBI")


def only_from(sock: socket.socket, source: Address) -> bool:
    """Drop in the kernel what is not from `source`, from now on; replaces the filter before. False: it can't."""
    program = _program(source)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count, and a pointer, which is aligned.
    fprog = struct.pack("@HP", len(program) // _instruction.size, ctypes.addressof(code))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
    except OSError:
        return False
    return True


def from_anyone(sock: socket.socket) -> None:
    """Take the filter off."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _program(source: Address) -> bytes:
    host = ipaddress.ip_address(source[0].partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    start = 12 if host.version == 4 else 8
    words = struct.unpack(f"!{len(host.packed) // 4}I", host.packed)
    wanted = [(_LOAD_WORD, _NETWORK_HEADER + start + 4 * at, word) for at, word in enumerate(words)]
    wanted.append((_LOAD_HALF, 0, source[1]))
    code = []
    for number, (load, where, value) in enumerate(wanted):
        code.append(_instruction.pack(load, 0, 0, where))
        # Another value: on to the last step.
        code.append(_instruction.pack(_JUMP_IF_EQUAL, 0, 2 * (len(wanted) - number) - 1, value))
    code += [_instruction.pack(_RETURN, 0, 0, _WHOLE), _instruction.pack(_RETURN, 0, 0, _NOTHING)]
    return b"".join(code)
