"""A datastore in an S3 bucket. **Losing it loses nothing** that a store's folder elsewhere has.

The same names as in a folder: ``store.json``, ``parts/…``, ``sources/NAME-…/…``. What a head names never changes and is
there before the head is; the head is replaced as a whole, and only where it is still the one that was read (``If-Match``).
So two who change a bucket at once do not lose each other's change, and who reads it gets one store and no mixture.

The bucket is trusted with nothing but being there: all that is fetched is compared with its digests before it is used, once,
and kept in a folder that is searched from then on. Whoever can replace the head can serve an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from strongroom.errors import BadAnswer, Conflict, MissingExtra, NotAStore, Unauthorised, Unreachable, Usage
from strongroom.lm import document
from strongroom.lm.datastore import BUILDING, HEAD, PARTS, SOURCES, Datastore, Head, become, manifests
from strongroom.lm.disk import remove, roomy
from strongroom.lm.locks import alone, emptied
from strongroom.lm.parts import FILES as PARTS_FILES
from strongroom.lm.parts import Parts
from strongroom.lm.source import Checked, Source, check, lengths, read_manifest

_GONE: Final = {"404", "NoSuchKey", "NoSuchBucket"}
_CHANGED: Final = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_DENIED: Final = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_TRIES: Final = 5
_LATE: Final = timedelta(days=1)
_RETRIES: Final = {"total_max_attempts": 3, "mode": "standard"}

Said = Callable[[int], None]


class _Missing(Exception):
    """An object that is not there."""


@dataclass(frozen=True)
class Bucket:
    """A store in a bucket.

    Attributes:
        client: boto3's.
        bucket, prefix: where; the prefix without a slash at its end.
    """

    client: Any
    bucket: str
    prefix: str

    @classmethod
    def at(cls, address: str, *, endpoint: str | None = None) -> Bucket:
        """The bucket of an address ``s3://BUCKET/PREFIX``; credentials as boto3 finds them. Raises MissingExtra, Usage."""
        found = urlsplit(address)
        if found.scheme != "s3" or not found.netloc:
            raise Usage("a bucket's address is s3://BUCKET/PREFIX")
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise MissingExtra("buckets need boto3", hint="pip install 'strongroom[store,bucket]'") from None
        with _said():
            return cls(
                boto3.client("s3", endpoint_url=endpoint, config=Config(connect_timeout=5, retries=_RETRIES)),
                found.netloc,
                found.path.strip("/"),
            )

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _bytes(self, name: str) -> tuple[bytes, str]:
        """An object that is small, and its tag."""
        with _said():
            found = self.client.get_object(Bucket=self.bucket, Key=self._key(name))
            if found["ContentLength"] > document.MAX_BYTES:
                raise BadAnswer("an object in the bucket is larger than anything of its name is")
            return found["Body"].read(), found["ETag"]

    def _whole(self, place: str, source: Source) -> bool:
        """Whether every file of a source is there, each of its length."""
        sizes = {name: file.size for name, file in source.manifest.files.items()}
        sizes["manifest.json"] = len(source.manifest.encode())
        return sizes.items() <= {name: size for name, size, _ in self._listed(f"{place}/")}.items()

    def _listed(self, place: str) -> Iterator[tuple[str, int, datetime]]:
        """What is below a place: its name there, its bytes, and when it was put there."""
        start = self._key(place)
        with _said():
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start):
                for one in page.get("Contents", ()):
                    yield one["Key"].removeprefix(start), one["Size"], one["LastModified"]

    def head(self) -> tuple[Head, str]:
        """What is in the store, and the tag of its head. Raises NotAStore, BadManifest, StoreVersion."""
        try:
            data, tag = self._bytes(HEAD)
        except _Missing:
            raise NotAStore("there is no datastore at that address") from None
        return Head.parse(data), tag

    # --- up ---------------------------------------------------------------------------------------------------------

    def push(self, folder: Path, said: Said = lambda _done: None) -> str:
        """Make the bucket's store what a folder's is now; what is there already is not brought again.

        Returns:
            the version.

        Raises:
            Conflict: somebody changed the bucket's store meanwhile, or it is of other frozen parts.
        """
        store = Datastore.open(folder)
        try:
            before, tag = self.head()
        except NotAStore:
            before, tag = None, ""
        if before is not None and before.parts != store.head.parts:
            raise Conflict("the bucket holds a store of other frozen parts")
        count = _Count(said)
        if before is None:
            self._up(folder / PARTS, PARTS, reversed(PARTS_FILES), count)
        for source in store.sources.values():
            place = f"{SOURCES}/{source.manifest.folder}"
            if not self._whole(place, source):
                self._up(source.folder, place, [*source.manifest.files, "manifest.json"], count)
        condition = {"IfMatch": tag} if before is not None else {"IfNoneMatch": "*"}
        with _said():
            self.client.put_object(Bucket=self.bucket, Key=self._key(HEAD), Body=store.head.encode(), **condition)
        for source in store.sources.values():  # who removed it before our head was there did so after we looked
            place = f"{SOURCES}/{source.manifest.folder}"
            if not self._whole(place, source):
                self._up(source.folder, place, [*source.manifest.files, "manifest.json"], count)
        self._sweep(before.folders if before is not None else set())
        return store.version

    def _up(self, folder: Path, place: str, names: Any, count: _Count) -> None:
        for name in names:
            with _said():
                self.client.upload_file(str(folder / name), self.bucket, self._key(f"{place}/{name}"), Callback=count)

    def _sweep(self, dropped: set[str]) -> None:
        """Remove what no head names: what the head before named, and what somebody left who was interrupted.

        What was put there of late can be somebody's who is about to name it; the bucket's own clock says what that is.
        """
        found: dict[str, datetime] = {}
        for name, _, when in self._listed(f"{SOURCES}/"):
            folder = name.partition("/")[0]
            found[folder] = max(when, found.get(folder, when))
        with _said():
            now = self.client.head_object(Bucket=self.bucket, Key=self._key(HEAD))["LastModified"]
        for folder, when in found.items():
            if (folder in dropped or now - when > _LATE) and folder not in self.head()[0].folders:
                self._remove(f"{SOURCES}/{folder}/")

    def _remove(self, place: str) -> None:
        """The manifest first: without it there is no source, whatever else is left."""
        names = [name for name, _, _ in self._listed(place)]
        for name in sorted(names, key=lambda name: name != "manifest.json"):
            with _said():
                self.client.delete_object(Bucket=self.bucket, Key=self._key(f"{place}{name}"))

    # --- down -------------------------------------------------------------------------------------------------------

    def fetch(self, folder: Path, said: Said = lambda _done: None) -> str:
        """Make a folder's store what the bucket's is now; what is there already is not fetched again.

        Returns:
            the version.

        Raises:
            NotAStore, Conflict: the folder's store is of other frozen parts, or the bucket's changes all the time. And as of
            ``lm.source.check``: the bucket holds something else than its head promises.
        """
        count = _Count(said)
        for _ in range(_TRIES):
            head, _tag = self.head()
            try:
                return self._fetched(folder, head, count)
            except _Missing:  # dropped while it was fetched: there is another head now
                continue
        raise Conflict("the bucket does not hold what its head names, or it changes faster than it can be fetched")

    def _fetched(self, folder: Path, head: Head, count: _Count) -> str:
        with roomy(), alone(folder / BUILDING / "fetched"):
            if not (folder / HEAD).exists():
                Datastore.create(folder, self._parts(folder / BUILDING / "parts", head, count))
            if Head.read(folder).parts != head.parts:
                raise Conflict("the folder holds a store of other frozen parts")
            parts = Parts.load(folder / PARTS)
            there = {manifest.digest for manifest in manifests(folder).values()}
            new = [name for name, digest in head.sources.items() if digest not in there]
            with ExitStack() as stack:
                place = folder / BUILDING / "fetched"
                stack.callback(emptied, place)
                return become(folder, head, [self._source(place, head, name, parts, count) for name in new]).digest

    def _parts(self, place: Path, head: Head, count: _Count) -> Parts:
        remove(place)
        place.mkdir(parents=True)
        for name in PARTS_FILES:
            with _said():
                self.client.download_file(self.bucket, self._key(f"{PARTS}/{name}"), str(place / name), Callback=count)
        found = Parts.load(place)
        remove(place)
        if found.digest != head.parts:
            raise BadAnswer("the bucket's frozen parts are not those that its head names")
        return found

    def _source(self, place: Path, head: Head, name: str, parts: Parts, count: _Count) -> Checked:
        inside, target = f"{SOURCES}/{head.folder(name)}", place / head.folder(name)
        remove(target)
        target.mkdir(parents=True)
        data, _ = self._bytes(f"{inside}/manifest.json")
        (target / "manifest.json").write_bytes(data)
        manifest = read_manifest(target)
        if manifest.digest != head.sources[name] or manifest.about.name != name:
            raise BadAnswer("a manifest in the bucket is not the one that its head names")
        for file in manifest.files:
            with _said():
                self.client.download_file(self.bucket, self._key(f"{inside}/{file}"), str(target / file), Callback=count)
        lengths(target, manifest)
        return check(target, parts)


class _Count:
    """Bytes brought so far; boto3 calls it from its threads."""

    def __init__(self, said: Said) -> None:
        self._said, self._done = said, 0

    def __call__(self, more: int) -> None:
        self._done += more
        self._said(self._done)


@contextmanager
def _said() -> Iterator[None]:
    """What a bucket answers, in our own words. Raises Unreachable, Unauthorised, Conflict, BadAnswer."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _GONE:
            raise _Missing from error
        if code in _CHANGED:
            raise Conflict(
                "somebody changed the bucket's store meanwhile", hint="Fetch it, and bring your change again."
            ) from error
        if code in _DENIED:
            raise Unauthorised(
                "the bucket refuses these credentials", hint="Say others, as every S3 client takes them."
            ) from error
        raise BadAnswer("the bucket answered with an error") from error
    except NoCredentialsError as error:
        raise Unauthorised(
            "the bucket asks for credentials", hint="Say them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise Unreachable("the bucket does not answer", hint="Check the address and --endpoint.") from error
