#!/usr/bin/env python3
"""Verifies a Leviathan journal with nothing but its public key and this file.

Usage: python3 verify_log.py JOURNAL_FOLDER VKEY [KEPT_CHECKPOINT]

It shares no code with Leviathan, so that a mistake there cannot hide itself here. The format: docs/log.md.
"""
import base64, hashlib, pathlib, re, struct, sys

P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, ROOT = -121665 * pow(121666, -1, P) % P, pow(2, (P - 1) // 4, P)
RECORD = re.compile(rb'\{"body":(\{.*\}),"hash":"([0-9a-f]{64})","prev_hash":"([0-9a-f]{64})","seq":([1-9][0-9]*)\}\n')
COMMIT = re.compile(rb'\{"commit":\{"bundle_id":"([\w.:/@-]{1,200})","first":([1-9][0-9]*),"last":([1-9][0-9]*),"hash":"([0-9a-f]{64})"\}\}\n')
sha = lambda *parts: hashlib.sha256(b"".join(parts)).digest()


def require(condition, what):
    if not condition:
        sys.exit(f"NOT VERIFIED: {what}")


# Ed25519, RFC 8032: a point is (x, y).
def add(a, b):
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(n, point):
    total = (0, 1)
    for bit in bin(n)[2:]:
        total = add(total, total)
        total = add(total, point) if bit == "1" else total
    return total


def point(data):
    number = int.from_bytes(data, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if (x * x - square) % P == 0 else x * ROOT % P
    require(y < P and (x * x - square) % P == 0 and not (x == 0 and sign), "a key or signature is malformed")
    return (x if x & 1 == sign else P - x), y


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def is_signed(key, text, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(r + key + text).digest(), "little") % L
    return s < L and times(s, BASE) == add(point(r), times(h, point(key)))


def opened(path, vkey):
    """Size and root of a checkpoint that the key signed, and the name of its log."""
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key, validate=True)
    require(len(key) == 33 and sha(name.encode(), b"\n", key)[:4].hex() == key_id, "the key is malformed")
    text, _, lines = path.read_text(encoding="utf-8").rpartition("\n\n")
    for line in lines.splitlines():
        signature = base64.b64decode(line.split(" ")[-1], validate=True)
        if line.startswith(f"— {name} ") and signature[:4].hex() == key_id and len(signature) == 68:
            require(is_signed(key[1:], text.encode() + b"\n", signature[4:]), f"{path} has a wrong signature")
            origin, size, root = text.split("\n")
            require(origin == name, f"{path} is of another log")
            return int(size), base64.b64decode(root, validate=True), origin
    require(False, f"{path} is not signed by this key")


def leaves_of(folder, origin):
    """The hash of each record, in order. Stops at the first byte that is wrong."""
    seq, committed, previous, hashes = 0, 0, sha(b"leviathan-genesis-v1\n", origin.encode()), []
    segments = sorted(folder.glob("*.ndjson"))
    for segment in segments:
        require(segment.name == f"{seq + 1:020}.ndjson" and seq == committed, f"{segment} is out of place")
        for line in segment.read_bytes().splitlines(keepends=True):
            if record := RECORD.fullmatch(line):
                seq += 1
                numbers = struct.pack(">QI", seq, len(record[1]))
                digest = sha(b"leviathan-event-v1\n", previous, numbers, record[1])
                is_next = int(record[4]) == seq and record[3].decode() == previous.hex()
                require(is_next and record[2].decode() == digest.hex(), f"record {seq} is not what was written")
                previous = digest
                hashes.append(digest)
            elif commit := COMMIT.fullmatch(line):
                numbers = struct.pack(">QQI", committed + 1, seq, len(commit[1]))
                seal = sha(b"leviathan-commit-v1\n", previous, numbers, commit[1])
                is_ours = (int(commit[2]), int(commit[3]), commit[4].decode()) == (committed + 1, seq, seal.hex())
                require(is_ours and committed < seq, f"the commit after record {seq} is not what was written")
                committed = seq
            else:
                is_torn = segment == segments[-1] and not line.endswith(b"\n")
                require(is_torn, f"there is a damaged line after record {seq}")
    return hashes[:committed]


def root_of(hashes):
    """The root of the tree of RFC 6962."""
    peaks = []
    for n, leaf in enumerate(hashes):
        node = sha(b"\0", leaf)
        while n & 1:
            node, n = sha(b"\1", peaks.pop(), node), n >> 1
        peaks.append(node)
    root = peaks.pop() if peaks else sha()
    while peaks:
        root = sha(b"\1", peaks.pop(), root)
    return root


def main(folder, vkey, *kept):
    folder = pathlib.Path(folder)
    checkpoints = [folder / "checkpoint", *map(pathlib.Path, kept)]
    require(checkpoints[0].exists(), "there is no checkpoint: whether the log was cut or rewritten cannot be seen")
    signed = [opened(path, vkey) for path in checkpoints]
    hashes = leaves_of(folder, signed[0][2])
    for path, (size, root, _) in zip(checkpoints, signed):
        require(size <= len(hashes), f"{path} is of {size} records, but there are {len(hashes)}: the end was cut off")
        require(root_of(hashes[:size]) == root, f"the first {size} records are not those of {path}: history was rewritten")
        print(f"The first {size} records are those that the key signed in {path}.")
    print(f"All {len(hashes)} records are chained. Not seen: records after the last checkpoint that were cut off,")
    print("and an older copy of journal and checkpoint together; keep a checkpoint elsewhere for that.")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
