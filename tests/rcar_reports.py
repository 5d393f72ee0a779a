"""Evidence as guests of another project send it, from the bytes that a processor signed."""

from __future__ import annotations

from typing import Any


def sev_json(raw: bytes) -> dict[str, Any]:
    """A report as the sev crate writes it in JSON (from 1.2; all reserved bytes by name)."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(raw[at : at + size], "little")

    def listed(at: int, size: int) -> list[int]:
        return list(raw[at : at + size])

    def tcb(at: int) -> dict[str, Any]:
        return {
            "bootloader": raw[at], "tee": raw[at + 1], "_reserved": listed(at + 2, 4), "snp": raw[at + 6],
            "microcode": raw[at + 7],
        }  # fmt: skip

    return {
        "version": number(0, 4), "guest_svn": number(4, 4), "policy": number(8, 8), "family_id": listed(16, 16),
        "image_id": listed(32, 16), "vmpl": number(48, 4), "sig_algo": number(52, 4), "current_tcb": tcb(56),
        "plat_info": number(64, 8), "_author_key_en": number(72, 4), "_reserved_0": 0, "report_data": listed(80, 64),
        "measurement": listed(144, 48), "host_data": listed(192, 32), "id_key_digest": listed(224, 48),
        "author_key_digest": listed(272, 48), "report_id": listed(320, 32), "report_id_ma": listed(352, 32),
        "reported_tcb": tcb(384), "_reserved_1": listed(392, 24), "chip_id": listed(416, 64), "committed_tcb": tcb(480),
        "current_build": raw[488], "current_minor": raw[489], "current_major": raw[490], "_reserved_2": 0,
        "committed_build": raw[492], "committed_minor": raw[493], "committed_major": raw[494], "_reserved_3": 0,
        "launch_tcb": tcb(496), "_reserved_4": listed(504, 168),
        "signature": {"r": listed(672, 72), "s": listed(744, 72), "_reserved": listed(816, 368)},
    }  # fmt: skip
