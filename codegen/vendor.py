"""`python -m codegen.vendor [--check]`: fetch the documentation page's script, or verify the stored copy.

The page must work with no network, so the published bundle is stored here as it is, only compressed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

STATIC = Path(__file__).parent.parent / "server/src/sheaf/http/static"
PACKAGE, VERSION = "@scalar/api-reference", "1.72.1"
MEMBER = "package/dist/browser/standalone.js"
#: Of the uncompressed file as published; `npm` itself verifies the archive against the registry.
SHA256 = "bf091006bdc3af6067af77c2f534812e3e633e94a94e87138069f570f33b762c"
TARGET = STATIC / f"scalar-{VERSION}.js.gz"


class VendorError(Exception):
    """The file is missing or is not the one that was reviewed."""


def fetch() -> bytes:
    """Download the pinned package and return the one file of it that the page loads."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise VendorError(f"npm pack failed: {done.stderr.strip()[:500]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            member = archive.extractfile(MEMBER)
            if member is None:
                raise VendorError(f"{PACKAGE}@{VERSION} holds no {MEMBER}")
            return member.read()


def verify(script: bytes) -> None:
    """Raise `VendorError` unless these are the bytes whose hash is pinned here."""
    found = hashlib.sha256(script).hexdigest()
    if found != SHA256:
        raise VendorError(f"{MEMBER} of {PACKAGE}@{VERSION}: sha256 is {found}, expected {SHA256}")


def refresh() -> None:
    """Store the verified file as gzip without name or time, and remove the copies of other versions."""
    script = fetch()
    verify(script)
    for old in STATIC.glob("scalar-*.js.gz"):
        old.unlink()
    TARGET.write_bytes(gzip.compress(script, compresslevel=9, mtime=0))


def check() -> None:
    """Verify the stored file; needs no network."""
    if [path.name for path in STATIC.glob("scalar-*.js.gz")] != [TARGET.name]:
        raise VendorError(f"{STATIC} must hold {TARGET.name} and no other version")
    verify(gzip.decompress(TARGET.read_bytes()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="codegen.vendor", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only verify the stored file")
    try:
        check() if parser.parse_args().check else refresh()
    except VendorError as error:
        print(f"vendor: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
