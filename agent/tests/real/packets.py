"""Sees the packets of a loopback interface that go to other addresses, and says where they go."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct

_SO_ATTACH_FILTER = 26
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_TCP, _UDP = 6, 17
_SYN, _ACK = 0x02, 0x10
_DNS = 53

# Programs for the kernel's packet filter (classic BPF): operation, jump if true, jump if false, operand. They let
# through every UDP packet, as a name is looked up on loopback too, and each packet to an address that is not loopback.
_LOAD_BYTE, _LOAD_WORD, _AND, _EQUAL, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x06
_ALL = 0xFFFF
_IPV4_FILTER = (
    (_LOAD_BYTE, 0, 0, 9),
    (_EQUAL, 3, 0, _UDP),
    (_LOAD_WORD, 0, 0, 16),
    (_AND, 0, 0, 0xFF000000),
    (_EQUAL, 1, 0, 0x7F000000),
    (_RETURN, 0, 0, _ALL),
    (_RETURN, 0, 0, 0),
)
_IPV6_FILTER = (
    (_LOAD_BYTE, 0, 0, 6),
    (_EQUAL, 8, 0, _UDP),
    (_LOAD_WORD, 0, 0, 24),
    (_EQUAL, 0, 6, 0),
    (_LOAD_WORD, 0, 0, 28),
    (_EQUAL, 0, 4, 0),
    (_LOAD_WORD, 0, 0, 32),
    (_EQUAL, 0, 2, 0),
    (_LOAD_WORD, 0, 0, 36),
    (_EQUAL, 1, 0, 1),
    (_RETURN, 0, 0, _ALL),
    (_RETURN, 0, 0, 0),
)


def watching_sockets() -> list[socket.socket]:
    """Return two sockets, for IPv4 and IPv6, that receive such packets of the network in which the caller runs."""
    sockets = []
    for protocol, program in ((_ETH_P_IP, _IPV4_FILTER), (_ETH_P_IPV6, _IPV6_FILTER)):
        watching = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        instructions = b"".join(struct.pack("HBBI", *each) for each in program)
        buffer = ctypes.create_string_buffer(instructions)
        attached = struct.pack("HL", len(program), ctypes.addressof(buffer))
        watching.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        watching.bind(("lo", protocol))
        sockets.append(watching)
    return sockets


def destination(packet: bytes) -> str | None:
    """Say where an IP packet tries to go, or None for one that answers another packet."""
    if packet[0] >> 4 == 4:
        protocol, address, rest = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 :]
    else:
        protocol, address, rest = packet[6], packet[24:40], packet[40:]
    port = int.from_bytes(rest[2:4], "big")
    where = f"{ipaddress.ip_address(address)} port {port}"
    if protocol == _TCP:
        # Only a SYN without ACK opens a connection.
        return f"TCP to {where}" if rest[13] & (_SYN | _ACK) == _SYN else None
    if protocol == _UDP:
        return f"DNS for {_name(rest[8:])}" if port == _DNS else f"UDP to {where}"
    return None


def _name(question: bytes) -> str:
    """Return the name that a DNS message asks for."""
    labels, at = [], 12
    while at < len(question) and (length := question[at]):
        labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels)
