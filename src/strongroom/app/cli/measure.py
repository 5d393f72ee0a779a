"""measure: what this installation measures, how a contract names its programs, and what an image of one's own will measure.

What cannot be computed from files is said, and the result is then one that no policy takes for a reference value.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import wire
from strongroom.app.client.home import read, reading
from strongroom.attest.evidence import Measurement
from strongroom.errors import BadField, NotMeasurable, Usage

from . import roles
from .place import example
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.images.expected import Expected

MAX_EVIDENCE_FILE_BYTES = 4 << 20
SIMULATED = "simulated"
MEANINGS = {
    "package": "strongroom itself, standard programs included",
    "dependencies": "every library that an enclave can import",
    "interpreter": "the Python that runs it, with its standard library",
    "launch": "how it is started: flags, environment, module",
    "measurement": "all of these in one: how a proposal is shown to name them",
}
# What each flag is for; a flag that the platform does not know is refused rather than passed over.
FLAGS = {
    "sev_snp": (
        "firmware",
        "kernel",
        "initrd",
        "cmdline",
        "vcpus",
        "vcpu_type",
        "vmm",
        "guest_features",
        "host_data",
        "id_key_digest",
        "author_key_digest",
    ),
    "dstack": ("compose", "key_provider", "key_provider_id", "mr_config", "storage_fs", "register", "from_evidence"),
    "nitro": ("eif",),
}
NEEDED = {"sev_snp": ("firmware", "vcpus"), "dstack": ("compose",), "nitro": ("eif",)}
_GIVEN = re.compile(r"([a-z0-9][a-z0-9_]{0,31})=((?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}))\Z")


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom measure                                     # compare with the measurement in a proposal
strongroom measure --json                              # into a file: for `strongroom attest policy --reference FILE`
strongroom measure --platform sev_snp --firmware OVMF.fd --vcpus 4 --vcpu-type EPYC-Milan --kernel vmlinuz
strongroom measure --platform nitro --eif app.eif
strongroom measure --platform dstack --compose app-compose.json --from-evidence verified.json
""",
    )
    parser.add_argument(
        "--platform", choices=(SIMULATED, *sorted(FLAGS)), default=SIMULATED, help="of an image; else this installation"
    )
    roles.extras(parser)
    snp = parser.add_argument_group("sev_snp: a guest on AMD SEV-SNP (needs strongroom[measure])")
    snp.add_argument("--firmware", type=Path, metavar="FILE", help="OVMF, as the hypervisor loads it")
    snp.add_argument("--kernel", type=Path, metavar="FILE", help="of a direct boot whose kernel the firmware measures")
    snp.add_argument("--initrd", type=Path, metavar="FILE")
    snp.add_argument("--cmdline", metavar="TEXT", help="the kernel's command line, exactly")
    snp.add_argument("--vcpus", type=_number, metavar="N", help="how many virtual processors it starts with")
    snp.add_argument("--vcpu-type", metavar="NAME", help="QEMU's name for them (EPYC-Milan); only QEMU needs it")
    snp.add_argument("--vmm", choices=("ec2", "gce", "qemu"), help="whose hypervisor starts it (qemu)")
    snp.add_argument("--guest-features", type=_number, metavar="BITS", help="SEV_FEATURES (0x1)")
    snp.add_argument("--host-data", type=_hex(32), metavar="HEX", help="32 bytes that the host sets (zeros)")
    snp.add_argument("--id-key-digest", type=_hex(48), metavar="HEX", help="of an ID block (zeros)")
    snp.add_argument("--author-key-digest", type=_hex(48), metavar="HEX", help="of an ID block (zeros)")
    app = parser.add_argument_group("dstack: a composed app on Intel TDX")
    app.add_argument("--compose", type=Path, metavar="FILE", help="app-compose.json, byte for byte as it is deployed")
    app.add_argument("--key-provider", choices=("kms", "local", "none", "tpm"), help="else as the composition says")
    app.add_argument("--key-provider-id", type=_hex(None), metavar="HEX", help="a KMS's root key, a local one's MRENCLAVE")
    app.add_argument("--mr-config", choices=("none", "v1", "v3"), help="what the host puts into MRCONFIGID")
    app.add_argument("--storage-fs", metavar="NAME", help="the file system, where the system measures it (zfs)")
    app.add_argument(
        "--register",
        type=_given,
        action="append",
        metavar="NAME=DIGEST",
        help="one that dstack-mr computed; may be said again",
    )
    app.add_argument(
        "--from-evidence",
        type=Path,
        metavar="FILE",
        help="take the rest from a first start that you watched: what `attest verify --json` said",
    )
    nitro = parser.add_argument_group("nitro: an AWS Nitro enclave")
    nitro.add_argument("--eif", type=Path, metavar="FILE", help="the image that nitro-cli built")
    parser.set_defaults(run=measure)


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise ArgumentTypeError(f"not a number: {text[:40]!r}") from error


def _hex(size: int | None) -> Callable[[str], bytes]:
    def parse(text: str) -> bytes:
        try:
            found = bytes.fromhex(text)
        except ValueError as error:
            raise ArgumentTypeError(f"not hex: {text[:40]!r}") from error
        if size is not None and len(found) != size:
            raise ArgumentTypeError(f"not {size} bytes in hex: {text[:40]!r}")
        return found

    return parse


def _given(text: str) -> tuple[str, str]:
    found = _GIVEN.match(text)
    if found is None:
        raise ArgumentTypeError(f"not NAME=sha384:… or NAME=sha256:…: {text[:40]!r}")
    return found[1], found[2]


def measure(args: Namespace, screen: Screen) -> int:
    _require_own_flags(args)
    if args.platform == SIMULATED:
        return _installation(args, screen)
    found = {"sev_snp": _sev_snp, "dstack": _dstack, "nitro": _nitro}[args.platform](args)
    value = found.to_json()
    screen.said("platform", found.platform)
    for name, digest in sorted(found.registers.items()):
        screen.said(name, digest)
    for name, where in found.missing.items():
        screen.said(name, f"not computed here: {where}")
    screen.said("from", found.build)
    if found.missing:
        screen.note("Not a whole reference value: add what is missing (--register, --from-evidence).")
    else:
        screen.said("digest", Measurement(found.platform, found.registers).digest)
    screen.result(value)
    return 0


def _require_own_flags(args: Namespace) -> None:
    own = FLAGS.get(args.platform, ())
    for platform, flags in FLAGS.items():
        for flag in flags:
            if flag not in own and getattr(args, flag) is not None:
                raise Usage(f"--{flag.replace('_', '-')} is of --platform {platform}")
    for flag in NEEDED.get(args.platform, ()):
        if getattr(args, flag) is None:
            raise Usage(
                f"--platform {args.platform} needs --{flag.replace('_', '-')}", hint="See: strongroom measure --help"
            )


def _installation(args: Namespace, screen: Screen) -> int:
    from strongroom.app.enclave.measure import FileDigests, Installation
    from strongroom.enclave.sandbox import program_digest
    from strongroom.programs import NAMES

    screen.note("measuring the package, its dependencies and the interpreter …")
    found = Installation.here(args.extras).measure(FileDigests())
    screen.heading("An enclave of this installation; the same for everybody with the same lock and interpreter")
    for name, value in {**found.registers, "measurement": found.digest}.items():
        screen.said(name, value)
        screen.said("", MEANINGS[name])
    screen.said("platform", "simulated (no hardware protection)")
    screen.heading("Its standard programs; a contract names one by this digest")
    programs = {name: program_digest(name) for name in NAMES}
    for name, value in programs.items():
        screen.said(name, value)
    screen.result({**found.to_json(), "programs": programs})
    return 0


def _sev_snp(args: Namespace) -> Expected:
    if args.kernel is None and (args.initrd is not None or args.cmdline is not None):
        raise Usage("--initrd and --cmdline are measured with a --kernel alone")
    if args.vmm in (None, "qemu") and args.vcpu_type is None:
        raise Usage("QEMU's processors differ: --vcpu-type NAME", hint="Such as EPYC-Milan, EPYC-Genoa, EPYC-v4.")
    try:
        from strongroom.app.images import snp
    except ImportError as error:
        raise NotMeasurable("sev-snp-measure is not installed", hint="pip install 'strongroom[measure]'") from error
    return snp.expected(
        args.firmware,
        vcpus=args.vcpus,
        vmm=args.vmm or "qemu",
        vcpu_type=args.vcpu_type,
        features=snp.GUEST_FEATURES if args.guest_features is None else args.guest_features,
        kernel=args.kernel,
        initrd=args.initrd,
        cmdline=args.cmdline or "",
        host_data=args.host_data or bytes(32),
        id_key_digest=args.id_key_digest or bytes(48),
        author_key_digest=args.author_key_digest or bytes(48),
    )


def _nitro(args: Namespace) -> Expected:
    from strongroom.app.images import nitro

    return nitro.expected(args.eif)


def _dstack(args: Namespace) -> Expected:
    from strongroom.app.images import dstack

    compose = read(args.compose, max_bytes=dstack.MAX_COMPOSE_BYTES)
    evidence = None if args.from_evidence is None else _measured(args.from_evidence, "dstack")
    return dstack.expected(
        compose,
        provider=args.key_provider,
        provider_id=None if args.key_provider_id is None else args.key_provider_id.hex(),
        configuration=args.mr_config,
        storage_fs=args.storage_fs,
        given=dict(args.register or ()),
        evidence=evidence,
    )


def _measured(path: Path, platform: str) -> Measurement:
    """The measurement in what ``attest verify --json`` said. Raises BadField, BadMeasurement."""
    with reading(path):
        value = wire.loads(read(path, max_bytes=MAX_EVIDENCE_FILE_BYTES))
        for member in ("submods", platform, "strongroom.measurement"):
            value = value.get(member) if isinstance(value, dict) else None
        if value is None:
            raise BadField(f"there is no measurement of {platform} that was verified: strongroom attest verify FILE --json")
        return Measurement.from_json(value)
