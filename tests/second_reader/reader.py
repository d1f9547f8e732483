#!/usr/bin/env python3
"""A second reader of a store, written from docs/reference/format.md alone.

    reader.py DIRECTORY         what the store contains, as JSON
    reader.py --batch FILE      the same for each store of a file, one line of JSON each (see `batch`)

Nothing here shares code with the library, so the test beside this file can compare the two: where they differ, one of them
is wrong or the page is. Reads only. Needs Python 3 and its standard library.
"""
import bisect
import functools
import json
import os
import re
import struct
import sys
import zlib

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
KIB4, MIB = 1 << 12, 1 << 20
GOLDEN = 0x9E3779B97F4A7C15
MAGIC_STORE = bytes.fromhex("89504e440d0a1a0a")
MAGIC_FILE = bytes.fromhex("895345470d0a1a0a")
MAGIC_INDEX = bytes.fromhex("894944580d0a1a0a")
NAME = re.compile(r"^[0-9a-f]{16}\.(seg|msg|dead|ckp|idx)$")
NOT_ZERO = re.compile(rb"[^\0]")
SUFFIXES = {1: "seg", 2: "msg", 4: "dead", 3: "ckp"}
KINDS = {suffix: kind for kind, suffix in SUFFIXES.items()}
MESSAGES, DEAD = 1, 2
CLASS_OF_KIND = {2: MESSAGES, 4: DEAD}
NOWHERE = 1 << 65


# ---------------------------------------------------------------- functions of the format

def crc(seed, data):
    return zlib.crc32(data, seed) & M32


def low(x):
    return x & M32


def finish(x):
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & M64
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & M64
    return x ^ (x >> 31)


def step(x):
    return finish((x + GOLDEN) & M64)


def place(salt, at):
    return step((salt + at * GOLDEN) & M64)


def key_hash(key):
    h = 0xCBF29CE484222325
    for b in key:
        h = (h ^ b) * 0x100000001B3 & M64
    return finish(h)


class StoreError(Exception):
    """The store does not open. `name` is the verdict of the page's table of damage."""

    def __init__(self, name, file=None, byte=None, lsns=None, what=""):
        super().__init__(f"{name}: {file} at byte {byte}: {what}")
        self.name, self.file, self.byte, self.lsns, self.what = name, file, byte, lsns, what


class Bad(Exception):
    """Bytes that cannot be decoded, or a precondition that does not hold."""


class Newer(Exception):
    """A kind, tag or version of a newer version."""


def need(holds, what):
    if not holds:
        raise Bad(what)


class Cursor:
    """Bytes that are used up from the front; every count is checked against what is left."""

    def __init__(self, data, at=0, end=None):
        self.data, self.at, self.end = data, at, len(data) if end is None else end

    def left(self):
        return self.end - self.at

    def take(self, n):
        if n > self.left():
            raise Bad(f"{n} bytes wanted, {self.left()} left")
        self.at += n
        return self.data[self.at - n:self.at]

    def u8(self):
        return self.take(1)[0]

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def varint(self, shortest=True, most=M64):
        value = 0
        for i in range(10):
            b = self.u8()
            if i == 9 and b > 1:
                raise Bad("a varint above 64 bits")
            value |= (b & 0x7F) << (7 * i)
            if b < 0x80:
                if shortest and i and b == 0:
                    raise Bad("a varint that is not the shortest")
                need(value <= most, "a number above its bits")
                return value
        raise Bad("a varint of more than ten bytes")

    def v32(self):
        return self.varint(most=M32)

    def signed(self):
        n = self.varint()
        return -(n + 1 >> 1) if n & 1 else n >> 1

    def count(self, least=1):
        n = self.varint()
        need(n * least <= self.left(), f"a count of {n} with {self.left()} bytes left")
        return n

    def text(self, most=None, fewest=0):
        raw = bytes(self.take(self.varint()))
        need(len(raw) >= fewest and (most is None or len(raw) <= most), f"a text of {len(raw)} bytes")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Bad("a text that is not UTF-8") from error

    def done(self):
        need(not self.left(), f"{self.left()} bytes too many")


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def signed(n):
    return varint(2 * n if n >= 0 else -2 * n - 1)


def text_bytes(s):
    raw = s.encode("utf-8")
    return varint(len(raw)) + raw


def value_bytes(value):
    return varint(len(value)) + value


# ---------------------------------------------------------------- STORE

def read_identity(data):
    """The uuid, or None where there is no valid identity."""
    if len(data) < 44 or data[:8] != MAGIC_STORE:
        return None
    if struct.unpack_from("<I", data, 40)[0] != crc(0, data[:40]):
        return None
    number, a, b, c = struct.unpack_from("<4I", data, 8)
    if number != 2 or a or b or c:
        raise StoreError("NewerFormat", "STORE", what=f"format {number}, words {a} {b} {c}")
    return data[24:40]


def read_slot(data, position, uuid):
    raw = data[position:position + 512]
    if len(raw) < 512:
        return None
    if struct.unpack_from("<I", raw, 508)[0] != crc(crc(low(step(position)), uuid), raw[:508]):
        return None
    names = ("sequence", "epoch", "clean", "watermark", "newest_segment", "newest_checkpoint")
    slot = dict(zip(names, struct.unpack_from("<6Q", raw, 0)))
    slot.update(zip(("compat", "ro_compat", "incompat", "flags"), struct.unpack_from("<4I", raw, 48)))
    if slot["clean"] not in (0, 1) or slot["sequence"] % 2 != (position == 8192):
        return None
    return slot


def read_store(files):
    """(uuid, valid slots), or None where a store is laid out."""
    if "STORE" not in files:
        others = [n for n in files if not n.startswith(".") and n != "lost+found"]
        if others:
            raise StoreError("NotAStore", what=min(others))
        return None
    data = files["STORE"]
    uuid = read_identity(data)
    if uuid is None:
        if any(NAME.match(n) for n in files):
            raise StoreError("Corrupt", "STORE", what="no valid identity")
        return None
    slots = [s for s in (read_slot(data, p, uuid) for p in (4096, 8192)) if s]
    for word in ("incompat", "ro_compat"):
        bits = 0
        for s in slots:
            bits |= s[word]
        if bits:
            raise StoreError("NewerFormat", "STORE", what=f"{word} bit {(bits & -bits).bit_length() - 1}")
    return uuid, slots


# ---------------------------------------------------------------- headers

@functools.lru_cache(maxsize=4096)
def read_header(data):
    """The fields of a header with magic and CRC, or None. `data` has 128 bytes at most."""
    if len(data) < 128 or data[:8] != MAGIC_FILE:
        return None
    if struct.unpack_from("<I", data, 124)[0] != crc(0, data[:124]):
        return None
    h = dict(zip(("format", "kind"), struct.unpack_from("<2I", data, 8)))
    h["uuid"] = data[16:32]
    h.update(zip(("number", "salt", "from", "to", "body", "table"), struct.unpack_from("<6Q", data, 32)))
    h.update(zip(("generation", "body_crc", "table_crc"), struct.unpack_from("<3I", data, 80)))
    h["epoch"] = struct.unpack_from("<Q", data, 92)[0]
    h["copy"] = h["kind"] == 1 and h["from"] < h["to"]
    return h


def read_headers(files, uuid):
    """Segments, files of classes, checkpoints and index files by kind and number; the header is None where it is not valid."""
    found, ignored = {"seg": {}, "msg": {}, "dead": {}, "ckp": {}, "idx": {}}, []
    for name in sorted(files):
        if name == "STORE":
            continue
        if not NAME.match(name):
            ignored.append(name)
            continue
        number, suffix = int(name[:16], 16), name[17:]
        found[suffix][number] = {"name": name, "number": number, "data": files[name], "header": None}
    for suffix in ("seg", "msg", "dead", "ckp"):
        for number, entry in sorted(found[suffix].items()):
            h = read_header(entry["data"][:128])
            if h is None:
                continue
            if h["format"] != 2:
                raise StoreError("NewerFormat", entry["name"], what=f"format {h['format']}")
            if h["kind"] != KINDS[suffix] or h["number"] != number:
                continue
            if h["uuid"] != uuid:
                raise StoreError("ForeignFile", entry["name"])
            entry["header"] = h
    return found, ignored


def check_headers(segments, slot):
    newest = slot["newest_segment"]
    for number, entry in sorted(segments.items()):
        if not entry["header"] and number <= newest:
            raise StoreError("Corrupt", entry["name"], what="no valid header")
    if newest and newest not in segments:
        raise StoreError("Corrupt", f"{newest:016x}.seg", what="the newest segment is absent")


# ---------------------------------------------------------------- frames

@functools.lru_cache(maxsize=20_000)
def parse_front(data, at, limit, salt, most=None):
    """What stands before the parts of the frame at byte `at`, where its checksum agrees; or None. It has at most `most` bytes."""
    if at + 8 > limit or at > M32:
        return None
    checksum, word = struct.unpack_from("<II", data, at)
    length = word & 0x3FFFFFF
    size = (length + 7) // 8 * 8
    if length < 8 or at + size > limit:
        return None
    end = at + length
    c = Cursor(data, at + 8, end)
    try:
        lsn = c.u64() if word >> 26 & 1 else None
        epoch = c.u64() if word >> 27 & 1 else None
        distance = c.varint(shortest=False) if word >> 28 & 1 else None
        kind, table = word >> 30, []
        if kind == 3:
            return None
        if kind == 1:
            table = [(c.varint(shortest=False), c.u32())]
        elif kind == 2:
            n = c.varint(shortest=False)
            if not 2 <= n <= 65536 or n * 8 > c.left():
                return None
            table = [(c.u32(), c.u32()) for _ in range(n)]
        head_at = c.at
    except Bad:
        return None
    head_end = end - (table[-1][0] if table else 0)
    if head_end < head_at or head_end - head_at > 4 * MIB:
        return None
    if any(a[0] > b[0] for a, b in zip(table, table[1:])):
        return None
    if most is not None and head_end - at > most:
        return None
    if crc(low(place(salt, at)), data[at + 4:head_end]) != checksum:
        return None
    return {"length": length, "size": size, "lsn": lsn, "epoch": epoch, "distance": distance, "table": table,
            "control": bool(word >> 29 & 1), "head": bytes(data[head_at:head_end]), "head_end": head_end}


@functools.lru_cache(maxsize=20_000)
def parse_frame(data, at, limit, salt, lsn=None, base_hint=None, parts_count=True, most_before_parts=None):
    """The frame at byte `at`, or None.

    `lsn` is what the place tells. `base_hint` is an LSN that counts only where the frame carries none.
    """
    front = parse_front(data, at, limit, salt, most_before_parts)
    if front is None:
        return None
    carried = front["lsn"]
    if carried is not None and lsn is not None and carried != lsn:
        return None
    where = carried if carried is not None else lsn if lsn is not None else base_hint
    if where is None or where % 8:
        return None
    watermark = None if front["distance"] is None else where - 8 * front["distance"]
    if watermark is not None and watermark < 0:
        return None
    f = {"at": at, "length": front["length"], "size": front["size"], "lsn": where, "epoch": front["epoch"],
         "has_lsn": carried is not None, "watermark": watermark, "control": front["control"], "head": front["head"],
         "parts": []}
    mask, begin = low(step(place(salt, at) ^ where)), 0
    for stop, check in front["table"]:
        a, b = front["head_end"] + begin, front["head_end"] + stop
        good = crc(0, data[a:b]) ^ mask == check
        f["parts"].append((a, b, good))
        if parts_count and not good:
            return None
        begin = stop
    return f


CONTROL_LENGTHS = {1: 1, 2: 1, 3: 38, 4: 18}


def control_frame(head):
    """What a control frame says, as (name, fields); Bad where it cannot be decoded."""
    need(head and len(head) == CONTROL_LENGTHS.get(head[0]), "a control frame that cannot be decoded")
    c = Cursor(head, 1)
    if head[0] == 1:
        return "segment start", {}
    if head[0] == 2:
        return "mark", {}
    if head[0] == 3:
        fields = {n: c.u64() for n in ("number", "from", "to", "salt")}
        fields["generation"], fields["class"] = c.u32(), c.u8()
        need(fields["class"] in (MESSAGES, DEAD), "a class")
        name = "file added"
    else:
        fields = {"from": c.u64(), "to": c.u64(), "classes": c.u8()}
        need(1 <= fields["classes"] <= 3, "classes")
        name = "range retired"
    need(fields["from"] < fields["to"], "a range that is empty")
    return name, fields


def read_start(entry):
    """The segment start of a segment that is no copy: (base, epoch, watermark), or None."""
    h, data = entry["header"], entry["data"]
    if not h or h["copy"]:
        return None
    f = parse_frame(data, 128, len(data), h["salt"])
    if not f or not f["control"] or f["head"] != b"\x01" or f["epoch"] is None:
        return None
    return f["lsn"], f["epoch"], f["watermark"] or 0


def decode_epochs(c):
    n = c.u32()
    need(n * 16 <= c.left(), "a count of epochs")
    epochs = [(c.u64(), c.u64()) for _ in range(n)]
    need(all(a[0] < b[0] and a[1] < b[1] for a, b in zip(epochs, epochs[1:])), "epochs that do not rise")
    return epochs


def read_class_table(entry):
    """The epochs of a file of a class, or None where it tells none."""
    h, data = entry["header"], entry["data"]
    table = data[128 + h["body"]:128 + h["body"] + h["table"]]
    if h["from"] >= h["to"] or len(table) != h["table"] or crc(0, table) != h["table_crc"]:
        return None
    try:
        c = Cursor(table)
        epochs = decode_epochs(c)
        c.done()
        return epochs if 1 <= len(epochs) <= 65535 else None
    except Bad:
        return None


# ---------------------------------------------------------------- checkpoints

def decode_section(data):
    """The files below C, the retired ranges by class, and the epochs of the log."""
    c, files, retired = Cursor(data), [], {}
    n = c.u32()
    need(n * 66 <= c.left(), "a count of files")
    for _ in range(n):
        s = {"number": c.u64(), "kind": c.u8(), "classes": c.u8(), "generation": c.u32(), "salt": c.u64(),
             "base": c.u64(), "end": c.u64(), "body": c.u64()}
        s["epochs"] = decode_epochs(c)
        need(s["epochs"] and s["kind"] in (1, 2, 4) and s["base"] <= s["end"], "a file of the section")
        need(1 <= s["classes"] <= 3 if s["kind"] == 1 else s["classes"] == CLASS_OF_KIND[s["kind"]], "classes of a file")
        s["name"] = f"{s['number']:016x}.{SUFFIXES[s['kind']]}"
        files.append(s)
    for k in (MESSAGES, DEAD):
        n = c.u32()
        need(n * 16 <= c.left(), "a count of retired ranges")
        retired[k] = [(c.u64(), c.u64()) for _ in range(n)]
    epochs = decode_epochs(c)
    need(len(epochs) <= 65536, "a count of epochs of the log")
    c.done()
    return files, retired, epochs


def whole_checkpoint(entry):
    """(covered LSN, files, retired, epochs, state bytes), or None where the checkpoint is not whole."""
    h, data = entry["header"], entry["data"]
    if not h or 128 + h["body"] + h["table"] > len(data):
        return None
    body = data[128:128 + h["body"]]
    table = data[128 + h["body"]:128 + h["body"] + h["table"]]
    if crc(0, body) != h["body_crc"] or crc(0, table) != h["table_crc"]:
        return None
    try:
        return (h["to"], *decode_section(table), body)
    except Bad:
        return None


def choose_checkpoint(checkpoints, named):
    """The newest that is whole up to the one that the slot names: (its name, what it says)."""
    for number in sorted((n for n in checkpoints if n <= named), reverse=True):
        whole = whole_checkpoint(checkpoints[number])
        if whole:
            return checkpoints[number]["name"], whole
    if named:
        raise StoreError("Corrupt", f"{named:016x}.ckp", what="no whole checkpoint")
    return None, (0, [], {MESSAGES: [], DEAD: []}, [], None)


# ---------------------------------------------------------------- which files hold the log

def candidate(entry, base, end, epochs):
    copy = entry["header"]["copy"]
    length = len(entry["data"])
    length = min(length, 128 + max(entry["header"]["to"] - base, 0)) if copy else length
    return {"entry": entry, "name": entry["name"], "number": entry["number"], "base": base, "end": end,
            "length": length, "epochs": epochs, "epoch": epochs[-1][1]}


def find_candidates(segments, C, listed, P):
    """Step 2."""
    in_list, found = {s["number"]: s for s in listed if s["kind"] == 1}, []
    for number, entry in sorted(segments.items()):
        h, s, start = entry["header"], in_list.get(number), read_start(entry)
        if not h:
            continue
        if s:
            end = s["end"] if s["end"] != C else h["to"] if h["copy"] else NOWHERE
            found.append(candidate(entry, s["base"], end, s["epochs"]))
        elif h["copy"] and h["from"] >= C and h["to"] <= P:
            found.append(candidate(entry, h["from"], h["to"], [(h["from"], h["epoch"])]))
        elif start:
            found.append(candidate(entry, start[0], NOWHERE, [start[:2]]))
    return found


def end_by_epochs(candidates, listed):
    """Step 3: where an epoch begins, every candidate of a lower one ends."""
    begun = sorted({(e, lsn) for x in candidates + listed for lsn, e in x["epochs"]})
    epochs, least = [e for e, _ in begun], [lsn for _, lsn in begun]
    for i in range(len(least) - 2, -1, -1):
        least[i] = min(least[i], least[i + 1])
    for c in candidates:
        later = bisect.bisect_right(epochs, c["epoch"])
        if later < len(least):
            c["end"] = min(c["end"], least[later])


def by_rank(c):
    return c["epoch"], c["base"], c["number"]


def walk(C, candidates):
    """Steps 4 and 5: the frames of the log from C on, and X."""
    lsn, entered, frames = C, set(), []
    while True:
        holding = [c for c in candidates if c["base"] <= lsn < c["end"] and c["number"] not in entered
                   and (not entered or c["base"] == lsn)]
        if not holding:
            return frames, lsn
        c = max(holding, key=by_rank)
        entered.add(c["number"])
        others = [o["base"] for o in candidates if o["epoch"] == c["epoch"] and lsn < o["base"] < o["end"]]
        leave, began = min([c["end"]] + others), lsn
        data, salt = c["entry"]["data"], c["entry"]["header"]["salt"]
        while True:
            at = 128 + lsn - c["base"]
            f = parse_frame(data, at, c["length"], salt, lsn)
            if not f or lsn + f["size"] > leave:
                break
            item = {"c": c, "f": f, "lsn": lsn, "end": lsn + f["size"], "control": None, "fields": None}
            if f["control"]:
                try:
                    item["control"], item["fields"] = control_frame(f["head"])
                except Bad as e:
                    raise StoreError("Corrupt", c["name"], at, what=str(e)) from e
            frames.append(item)
            lsn += f["size"]
        if lsn == began:
            return frames, lsn


def says_something(item):
    return item["control"] not in ("segment start", "mark")


def search(data, at, limit, salt, base):
    """Step 6 in one file: the highest watermark of the frames found, and the length of what is neither zeros nor idle frames."""
    watermark, first, last = 0, None, None
    while at < limit:
        there = NOT_ZERO.search(data, at, limit)
        if not there:
            break
        at = max(at, there.start() // 8 * 8)
        f = parse_frame(data, at, limit, salt, None, base + at - 128, False, KIB4) if data[at + 4:at + 8] != bytes(4) else None
        if f:
            watermark = max(watermark, f["watermark"] or 0)
            stop = at + f["size"]
            idle = f["control"] and f["head"] in (b"\1", b"\2")
        else:
            stop = at + len(data[at:min(at + 8, limit)].rstrip(b"\0"))
            idle = stop == at
        if not idle:
            first, last = at if first is None else first, stop
        at = stop if f else at + 8
    return watermark, 0 if first is None else last - first


def search_behind(segments, candidates, X, said, clean):
    """Step 6: (the highest watermark behind X, (file, byte) where the log stops, bytes that are dropped)."""
    begun = [c for c in candidates if c["base"] <= X and c["base"] < c["end"]]
    last = max(begun, key=by_rank) if begun else None
    stop = None
    if last and 128 + X - last["base"] <= last["length"]:
        stop = last["name"], 128 + X - last["base"]
    if clean:
        return 0, stop, 0
    todo = [(last["entry"], 128 + X - last["base"], last["length"], last["base"])] if last else []
    for number, entry in sorted(segments.items()):
        h, start = entry["header"], read_start(entry)
        if h and not h["copy"] and not (last and number <= last["number"]):
            todo.append((entry, 128, len(entry["data"]), start[0] if start else said))
    results = [search(e["data"], at, limit, e["header"]["salt"], base) for e, at, limit, base in todo]
    return max([w for w, _ in results] + [0]), stop, sum(n for _, n in results)


def serves_no_more(listed, a, b, classes):
    """All that lies wholly within a to b serves these classes no more; what serves none is off the list."""
    for s in listed:
        if a <= s["base"] and s["end"] <= b:
            s["classes"] &= ~classes
    listed[:] = [s for s in listed if s["classes"]]


def change_list(item, found, C, listed, retired):
    """`file added` and `range retired` on the way change the list."""
    x = item["fields"]
    if item["control"] == "range retired":
        for k in (MESSAGES, DEAD):
            if x["classes"] & k:
                retired[k].append((x["from"], x["to"]))
        serves_no_more(listed, x["from"], x["to"], x["classes"])
    elif item["control"] == "file added":
        kind = 2 if x["class"] == MESSAGES else 4
        name = f"{x['number']:016x}.{SUFFIXES[kind]}"
        if x["to"] > C:
            raise StoreError("Corrupt", name, what="a file added for what lies above C")
        serves_no_more(listed, x["from"], x["to"], x["class"])
        entry = found[SUFFIXES[kind]].get(x["number"])
        h = entry and entry["header"]
        listed.append({"name": name, "number": x["number"], "kind": kind, "classes": x["class"], "base": x["from"],
                       "generation": x["generation"], "salt": x["salt"], "end": x["to"], "body": h["body"] if h else 0,
                       "epochs": read_class_table(entry) if h else None})
        listed.sort(key=lambda s: (s["base"], s["number"]))


def same_file(entry, s):
    """Whether a file is the one of the list."""
    h = entry["header"]
    if h["salt"] != s["salt"]:
        return False
    if s["kind"] != 1:
        return (h["generation"], h["body"], h["from"], h["to"]) == (s["generation"], s["body"], s["base"], s["end"])
    start = read_start(entry)
    return h["from"] == s["base"] if h["copy"] else start is None or start[0] == s["base"]


def check_list(found, listed, retired, C, log_epochs, highest):
    """The files of the list, those that overlap, gaps, missing epochs, and epochs that the log did not have."""
    for s in listed:
        name, entry = s["name"], found[SUFFIXES[s["kind"]]].get(s["number"])
        if not entry or not entry["header"]:
            raise StoreError("Corrupt", name, what="a file of the list is absent")
        if not same_file(entry, s):
            raise StoreError("Corrupt", name, what="a file of the list is another one")
        if len(entry["data"]) < 128 + (s["end"] - s["base"] if s["kind"] == 1 else s["body"]):
            raise StoreError("Corrupt", name, what="a file of the list is too short")
        if s["epochs"] is None or any(e == 0 for _, e in s["epochs"]):
            raise StoreError("Corrupt", name, what="a table without epochs, or an epoch that none has")
        s["entry"] = entry
    for s in listed:
        others = [o for o in listed if o is not s and o["classes"] & s["classes"]]
        if s["kind"] != 1 and any(o["base"] < s["end"] and s["base"] < o["end"] for o in others):
            raise StoreError("Corrupt", s["name"], what="a file of a class that overlaps another")
    for k in (MESSAGES, DEAD):
        at = 0
        for a, b in sorted([(s["base"], s["end"]) for s in listed if s["classes"] & k] + retired[k]):
            if a > at:
                break
            at = max(at, b)
        if at < C:
            raise StoreError("Corrupt", "STORE", what=f"class {k} has a gap at LSN {at}")
    from_start = log_epochs and (log_epochs[0][0] == 0 or len(log_epochs) == 65536)
    if C and not (from_start and log_epochs[-1][0] < C):
        raise StoreError("Corrupt", "STORE", what="a list without the epochs that it must have")
    for s in listed:
        if any(e > highest for _, e in s["epochs"]):
            raise StoreError("Corrupt", s["name"], what="an epoch that the log did not have")


def highest_epoch(segments, slots, listed):
    epochs = [s["epoch"] for s in slots] + [e for s in listed for _, e in s["epochs"]]
    for entry in segments.values():
        h, start = entry["header"], read_start(entry)
        epochs += ([h["epoch"]] if h and h["copy"] else []) + ([start[1]] if start else [])
    return max(epochs)


def check_watermark(frames, C, W, end):
    """Whether what lies above the watermark begins with a frame."""
    for i in frames:
        if i["lsn"] < W < min(i["end"], end):
            c = i["c"]
            to = min(max(o["end"] for o in frames if o["c"] is c), end)
            raise StoreError("Corrupt", c["name"], None, [W, to], "the watermark is within a frame")


def find_log(found, slot, slots, C, listed, retired, log_epochs):
    """Steps 2 to 7."""
    segments = found["seg"]
    starts = [read_start(e) for e in segments.values()]
    P = max([C, slot["watermark"]] + [s[2] for s in starts if s])
    highest = highest_epoch(segments, slots, listed)
    candidates = find_candidates(segments, C, listed, P)
    end_by_epochs(candidates, listed)
    frames, X = walk(C, candidates)
    W = max([P] + [i["f"]["watermark"] or 0 for i in frames])
    said = max([i["end"] for i in frames if says_something(i)] + [C])
    clean = slot["clean"] == 1 and slot["epoch"] == highest and X == W == slot["watermark"]
    behind, stop, dropped = search_behind(segments, candidates, X, said, clean)
    W = max(W, behind)
    if X < W:
        name, at = stop or (f"{slot['newest_segment']:016x}.seg", None)
        raise StoreError("Corrupt", name, at, [X, W], "no valid frame below the watermark")
    if said < W and W not in [i["end"] for i in frames]:
        raise StoreError("Corrupt", "STORE", what="the watermark is within a frame")
    end = max(W, said)
    for item in frames:
        if item["end"] <= end:
            change_list(item, found, C, listed, retired)
    check_list(found, listed, retired, C, log_epochs, highest)
    if highest >> 32 == M32:
        raise StoreError("Corrupt", "STORE", what="an epoch with the highest count there is")
    check_watermark(frames, C, W, end)
    return {"frames": [i for i in frames if i["end"] <= end], "W": W, "end": end, "clean": clean, "highest": highest,
            "dropped": [*stop, dropped] if stop and dropped else None}


# ---------------------------------------------------------------- records

OPTIONS = {1: 30000, 2: 5, 3: 1000, 4: 300000, 5: 1, 6: 65536, 7: 20, 8: 0, 9: 0, 10: 1, 11: 0, 12: 0, 13: 0, 14: 0, 15: (), 16: 0, 17: 0, 18: 0,
           19: 0, 20: 0, 21: ""}
TOPIC_OPTIONS = {1: 0, 2: 16384, 3: 120000, 4: 0, 5: 1, 6: 0, 7: 0, 8: 0, 9: 0, 10: 0}
RETENTION, DEDUP_IDS, DEDUP_WINDOW, STREAMS, SNAPSHOTS_KEPT, RETAINED = 1, 2, 3, 4, 5, 6
MAX_MESSAGES, WHEN_FULL, BLOCK_MS, DROPS = 7, 8, 9, 10
BY_AGE, BY_COUNT = 2, 3
MOST_MARKS = 18
TEN_YEARS = 10 * 366 * 86400 * 1000
MOST_NAMED = 65536
MOST_IDS = 1 << 20
VERSIONS = M64 - 1
RECORD_KINDS = 36
MOST_KEYS = 1 << 20
MOST_SCHEDULED = 1 << 20
MOST_PARKED = 4 * 65536
MOST_RECALLED = 1024
SIMPLE = {4: "group partition offset due delay", 5: "group partition offset until", 6: "group partition offset",
          7: "group partition offset due delay", 8: "group partition offset since",
          10: "group partition offset due delay", 12: "group dead_letter", 14: "time", 17: "topic", 18: "group", 22: "partition offset"}


def decode_options(c, known):
    options, before = dict(known), 0
    for _ in range(c.count(2)):
        tag = c.varint()
        need(tag > before, "tags that do not rise")
        before = tag
        v = Cursor(c.take(c.varint()))
        if tag not in known:
            raise Newer(f"an option with the tag {tag}")
        value = {(): decode_delays, "": decode_filter}.get(known[tag], Cursor.varint)(v)
        v.done()
        need(value != known[tag], "an option that is written with the value for left out")
        options[tag] = value
    return options


FILTER_PIECE = re.compile(
    r"""[ \t\n\r]*(?:
        (?P<text>'(?:[^']|'')*'(?!')) | (?P<name>"(?:[^"]|"")*"(?!")) | (?P<sign><=|>=|[(),=<>])
        | (?P<number>[-0-9][-.0-9]*) | (?P<word>[A-Za-z_][A-Za-z0-9_.:-]*) | (?P<end>\Z)
    )""", re.VERBOSE)
FILTER_WORDS = ("and", "or", "not", "exists", "in", "starts", "with", "matches")


def filter_pieces(text):
    pieces, at = [], 0
    while not pieces or pieces[-1][0] != "end":
        piece = FILTER_PIECE.match(text, at)
        need(piece is not None, "a filter with what is no piece of one")
        kind, at = piece.lastgroup, piece.end()
        need(kind != "number" or re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", piece[kind]), "a filter with what is no number")
        pieces.append((kind, piece[kind]))
    return pieces


def check_filter(text):
    """The grammar of filters: any, all and one, each takes what it is off the pieces."""
    pieces = filter_pieces(text)[::-1]

    def takes(*wanted):
        found = pieces[-1] in [("word", w) for w in wanted] + [("sign", w) for w in wanted]
        return bool(found and pieces.pop())

    def take(*kinds):
        need(pieces[-1][0] in kinds, "a filter that is none")
        return pieces.pop()

    def joined(by, part, depth):
        part(depth)
        while takes(by):
            part(depth)

    def one(depth):
        need(depth < 16, "a filter that is nested too deep")
        if takes("not"):
            one(depth + 1)
        elif takes("("):
            whole(depth + 1)
            need(takes(")"), "a filter with a parenthesis that does not end")
        else:
            need(pieces[-1][1] not in FILTER_WORDS or pieces[-1][0] == "name", "a filter with a word for a header")
            take("word", "name")
            test()

    def test():
        if takes("exists"):
            return
        if takes("in"):
            need(takes("("), "a filter with a list that does not begin")
            take("text")
            while takes(","):
                take("text")
            need(takes(")"), "a filter with a list that does not end")
        elif takes("starts"):
            need(takes("with"), "a filter that starts without with")
            take("text")
        elif takes("matches"):
            words = take("text")[1][1:-1].replace("''", "'").split(".")
            fits = [w == "*" or w == ">" and n + 1 == len(words) or w and not set(w) & set("*>") for n, w in enumerate(words)]
            need(all(fits), "a filter with a pattern that is none")
        elif takes("="):
            take("text", "number")
        else:
            need(takes("<", "<=", ">", ">="), "a filter with a test that is none")
            take("number")

    def whole(depth):
        joined("or", lambda depth: joined("and", one, depth), depth)

    whole(0)
    take("end")


def decode_filter(v):
    text = bytes(v.take(v.left()))
    need(len(text) <= 1024, "a filter of more than 1,024 bytes")
    try:
        text = text.decode()
    except UnicodeDecodeError:
        raise Bad("a filter that is no text") from None
    if text:
        check_filter(text)
    return text


def decode_delays(v):
    delays = []
    while v.left():
        delays.append(v.varint())
    need(len(delays) <= 16, "more than 16 delays")
    return tuple(delays)


def decode_topic_options(c):
    options = decode_options(c, TOPIC_OPTIONS)
    need(options[RETENTION] in (0, 1, BY_AGE, BY_COUNT), "a retention")
    need((options[RETAINED] != 0) == (options[RETENTION] in (BY_AGE, BY_COUNT)), "how much a retention keeps")
    need(options[RETENTION] != BY_AGE or options[RETAINED] <= TEN_YEARS, "an age")
    need(1 <= options[DEDUP_IDS] <= M32, "dedup ids")
    need(options[STREAMS] in (0, 1), "streams")
    need(1 <= options[SNAPSHOTS_KEPT] <= M32, "snapshots kept")
    need(options[WHEN_FULL] in (0, 1, 2) and (options[MAX_MESSAGES] or not options[WHEN_FULL]), "what a full topic does")
    need(options[DROPS] in (0, 1), "whether messages are dropped")
    need(not options[DROPS] or options[RETENTION] in (BY_AGE, BY_COUNT), "which messages are dropped")
    need((options[BLOCK_MS] != 0) == (options[WHEN_FULL] == 1) and options[BLOCK_MS] <= 86_400_000, "how long to wait")
    return options


def decode_name(c):
    return c.text(255, 1)


def decode_value(c):
    value = bytes(c.take(c.varint()))
    need(len(value) <= 1024, "the value of a named cursor")
    return value


def decode_failure(c):
    cause, time, text = c.u8(), c.varint(), c.text(120)
    need(cause <= 4, f"a failure with the cause {cause}")
    return cause, time, text


def decode_copy(c):
    copy = {"partition": c.varint(), "offset": c.varint(), "time": c.varint()}
    copy["id"], copy["first_time"] = tuple(c.varint() for _ in range(4)), c.varint()
    copy["redrives"], copy["attempts"] = c.v32(), c.v32()
    n = c.varint()
    need(n <= 8, "a copy of more than eight failures")
    copy["failures"] = [decode_failure(c) for _ in range(n)]
    copy["earlier"] = decode_earlier(c, n)
    return copy


def decode_earlier(c, n):
    """Of eight failures, how many nacks, expiries and crashes were before."""
    return [c.v32(), c.v32(), c.v32()] if n == 8 else [0, 0, 0]


def decode_count(c):
    if not c.left():
        return 1
    n = c.v32()
    need(n > 1, "a count of 0, or of 1 that is written")
    return n


def decode_leased(r, c):
    r.update((n, c.varint()) for n in ("group", "partition", "first", "until"))
    flags, r["count"], r["attempt"], r["time"] = 0, 1, 1, 0
    if c.left():
        flags = c.u8()
        need(0 < flags < 8, f"flags {flags} of a lease")
        if flags & 1:
            r["count"] = c.v32()
            need(r["count"] > 1, "a count of 0, or of 1 that is written")
        if flags & 2:
            r["attempt"], r["time"] = c.v32(), c.varint()
            need(r["attempt"] != 1, "an attempt of 1 that is written")
    r["exclusive"] = bool(flags & 4)


def decode_body(kind, c):
    r = {"kind": kind}
    for n in SIMPLE.get(kind, "").split():
        r[n] = c.varint()
    if kind == 1:
        r.update((n, c.varint()) for n in ("partition", "base", "time"))
        r["count"] = decode_count(c)
    elif kind == 2:
        decode_leased(r, c)
    elif kind in (3, 33, 34):
        r.update((n, c.varint()) for n in ("group", "partition", "first"))
        r["count"] = decode_count(c)
    elif kind == 4:
        r["failure"] = decode_failure(c)
    elif kind in (30, 31):
        r.update((n, c.varint()) for n in ("group", "partition", "first"))
        r["counted"], at = [], 0
        for _ in range(c.count() if kind == 30 else 0):
            r["counted"].append(at + c.v32())
            at = r["counted"][-1] + 1
        n, rest = divmod(c.left(), 8)
        need(n and not rest, "no keys, or a part of one")
        r["keys"] = [bytes(c.take(8)) for _ in range(n)]
    elif kind == 9:
        r.update((n, c.varint()) for n in ("group", "partition", "offset"))
        r["copy"] = decode_copy(c)
    elif kind == 11:
        r.update((n, c.varint()) for n in ("group", "dead_letter"))
        r["copy"] = decode_copy(c)
    elif kind == 13:
        r["epoch"], r["time"], r["clean"] = c.varint(), c.varint(), c.u8()
        need(r["clean"] in (0, 1), "clean")
    elif kind == 15:
        r["topic"], r["text"] = c.varint(), c.text(255, 1)
        r["first"], r["count"], r["options"] = c.varint(), c.v32(), decode_topic_options(c)
    elif kind == 16:
        r["group"], r["text"], r["topic"] = c.varint(), c.text(255, 1), c.varint()
        r["options"], r["retry"] = decode_options(c, OPTIONS), c.varint()
        r["starts"] = [c.varint() for _ in range(c.count())]
    elif kind == 19:
        r["group"], r["options"] = c.varint(), decode_options(c, OPTIONS)
    elif kind == 14:
        r["by"] = c.signed()
    elif kind == 20:
        r["text"], r["value"] = decode_name(c), decode_value(c)
        r["hold"] = (c.varint(), c.varint()) if c.left() else None
    elif kind == 21:
        r["text"] = decode_name(c)
    elif kind == 22:
        r["id"], r["body"], r["time"] = bytes(c.take(16)), bytes(c.take(8)), c.varint()
    elif kind == 23:
        r["topic"], r["text"], r["sequence"] = c.varint(), decode_name(c), c.varint()
    elif kind == 24:
        r["partition"], r["key"] = c.varint(), bytes(c.take(16))
        r.update((n, c.varint()) for n in ("base", "time", "version", "first"))
        r["count"] = decode_count(c)
    elif kind in (25, 26):
        r["partition"], r["key"] = c.varint(), bytes(c.take(16))
        r["note"] = {n: c.varint() for n in ("partition", "offset", "time")}
        r["time"] = r["note"]["time"]
        r.update((n, c.varint()) for n in ("version", "first", "next")[26 - kind:])
    elif kind == 32:
        r["topic"], r["time"] = c.varint(), c.varint()
    elif kind == 35:
        r["partition"], r["offset"], r["key"] = c.varint(), c.varint(), bytes(c.take(16))
        r["message key"] = bytes(c.take(8))
        r["replaced"] = (c.varint(), c.varint()) if c.left() else None
    elif kind == 36:
        r["group"] = c.varint()
        r["starts"] = [c.varint() for _ in range(c.count())]
        r["from"] = [start - c.varint() for start in r["starts"]]
        need(all(a >= 0 for a in r["from"]), "what is kept begins before the first message")
    elif kind == 27:
        r["topic"], r["partition"] = c.varint(), c.varint()
    elif kind == 28:
        r.update((n, c.varint()) for n in ("partition", "offset", "to"))
        r["due"], again = decode_due(c, 2)
        r["again"] = again != 0
    elif kind == 29:
        r["partition"], r["offset"] = c.varint(), c.varint()
        r["copy"] = decode_copy(c) if c.left() else None
    c.done()
    return r


def decode_due(c, known):
    """((by the wall clock, time), the flags beside that)."""
    flags, time = c.u8(), c.varint()
    need(flags & ~(1 | known) == 0, "flags of a due time")
    return (flags & 1, time), flags & known


@functools.lru_cache(maxsize=20_000)
def decode_records(head):
    """(the records of a head up to one that cannot be decoded, why that one cannot or None)."""
    c, records = Cursor(head), []
    try:
        while c.left():
            kind = c.varint()
            body = Cursor(c.take(c.varint()))
            if kind > RECORD_KINDS:
                raise Newer(f"a record of kind {kind}")
            need(kind != 0, "a record of kind 0")
            records.append(decode_body(kind, body))
    except (Bad, Newer) as error:
        return records, error
    return records, None


def claim(r):
    """(partition, first offset, count) of the parts that a record claims, or None."""
    if r["kind"] in (1, 24):
        return r["partition"], r["base"], r["count"]
    for what in ("copy", "note"):
        if r.get(what):
            return r[what]["partition"], r[what]["offset"], 1
    return None


# ---------------------------------------------------------------- settled dead letters

FULL = (1 << 512) - 1


class SettledDeadLetters:
    """Those of a group: runs of whole chunks of 512, and bitmaps of chunks of which some are."""

    def __init__(self):
        self.runs, self.bitmaps = [], {}

    def __contains__(self, letter):
        chunk, bit = divmod(letter, 512)
        return any(a <= chunk < b for a, b in self.runs) or bool(self.bitmaps.get(chunk, 0) >> bit & 1)

    def count(self):
        return sum(512 * (b - a) for a, b in self.runs) + sum(bin(bits).count("1") for bits in self.bitmaps.values())

    def end(self):
        """One above the last one."""
        last = [512 * b for _, b in self.runs] + [512 * c + bits.bit_length() for c, bits in self.bitmaps.items()]
        return max(last, default=0)

    def add(self, letter):
        chunk, bit = divmod(letter, 512)
        bits = self.bitmaps.get(chunk, 0) | 1 << bit
        self.bitmaps[chunk] = bits
        if bits == FULL:
            del self.bitmaps[chunk]
            merged = []
            for a, b in sorted(self.runs + [(chunk, chunk + 1)]):
                if merged and merged[-1][1] == a:
                    a = merged.pop()[0]
                merged.append((a, b))
            self.runs = merged

    def encode(self):
        runs = list(self.runs)
        floor = runs.pop(0)[1] if runs and runs[0][0] == 0 else 0
        out, at = varint(floor) + varint(len(runs)), 0
        for a, b in runs:
            out += varint(a - at) + varint(b - a)
            at = b
        out, at = out + varint(len(self.bitmaps)), 0
        for chunk, bits in sorted(self.bitmaps.items()):
            out += varint(chunk - at) + bits.to_bytes(64, "little")
            at = chunk + 1
        return out

    @classmethod
    def decode(cls, c):
        letters, floor = cls(), c.varint()
        if floor:
            letters.runs.append((0, floor))
        at = 0
        for _ in range(c.count(2)):
            begin = at + c.varint()
            at = begin + c.varint()
            need(at > begin, "an empty run")
            need(begin > (letters.runs[-1][1] if letters.runs else 0), "runs that touch")
            letters.runs.append((begin, at))
        at = 0
        for _ in range(c.count(65)):
            at += c.varint()
            bits = int.from_bytes(c.take(64), "little")
            need(0 < bits < FULL, "a bitmap that is empty or full")
            need(not any(a <= at < b for a, b in letters.runs), "a bitmap in a run")
            letters.bitmaps[at] = bits
            at += 1
        need(letters.end() < 1 << 64, "a dead letter above all")
        return letters


# ---------------------------------------------------------------- what records do

LEASED, WAITING, READY, PARKED = 0, 1, 2, 3
BY_KEY, BY_PARTITION = 1, 2
NO_KEY, LOST_KEY = bytes(8), b"\xff" * 8
PLAIN, EXCLUSIVE, EXHAUSTED = "plain", "exclusive", "exhausted"
NACKED, EXPIRED, CRASHED, CLOSED = 0, 1, 2, 3
GRACE, ALONE, OVER = 1, 2, 3


def new_state():
    return {"epoch": 0, "next_topic": 0, "next_group": 0, "next_partition": 0, "topics": {}, "groups": {},
            "awaited": None, "out": None, "jumped": 0, "named": {}, "windows": {}, "producers": {}, "keys": {}}


def new_group(name, topic, options, retry, nexts):
    return {"name": name, "topic": topic, "options": options, "retry": retry, "retry_end": 0, "dead_end": 0,
            "turns": 0, "cursor": 0, "source": 3, "rank_lsn": 0, "rank": 0, "texts_dropped": 0, "dropped": 0, "text_bytes": 0,
            "settled": SettledDeadLetters(), "counted": {}, "cursors": [{"next": n, "messages": {}} for n in nexts]}


def new_message(attempts, limit):
    return {"phase": LEASED, "attempts": attempts, "limit": limit, "crashes": 0, "closes": 0, "backoff": 0, "verdict": 0, "exclusive": False, "last": False,
            "earlier": [0, 0, 0], "extended": False, "until": 0, "lsn": 0, "rank": 0, "due": 0, "delay": 0, "turn": 0, "history": [], "key": None}


def owner(s, partition):
    """("topic", topic, index), ("notes", topic, 0), ("retry", group, 0), ("dead", group, 0), or None."""
    for t, topic in s["topics"].items():
        if topic["first"] <= partition < topic["first"] + len(topic["ends"]):
            return "topic", t, partition - topic["first"]
        if topic["options"][STREAMS] and partition == topic["first"] + len(topic["ends"]):
            return "notes", t, 0
        if topic["schedule"] is not None and partition == topic["schedule"]["partition"]:
            return "schedule", t, 0
    for g, group in s["groups"].items():
        if partition in (group["retry"], group["retry"] + 1):
            return ("retry", "dead")[partition - group["retry"]], g, 0
    return None


def class_of(s, partition):
    where = owner(s, partition)
    return 0 if where is None else DEAD if where[0] == "dead" else MESSAGES


def end_of(s, partition):
    what, n, i = owner(s, partition)
    if what == "notes":
        return s["topics"][n]["notes"]
    if what == "schedule":
        return s["topics"][n]["schedule"]["end"]
    return s["topics"][n]["ends"][i] if what == "topic" else s["groups"][n][what + "_end"]


def grow(s, partition, by):
    what, n, i = owner(s, partition)
    if what == "topic":
        s["topics"][n]["ends"][i] += by
    elif what == "notes":
        s["topics"][n]["notes"] += by
    elif what == "schedule":
        s["topics"][n]["schedule"]["end"] += by
    else:
        s["groups"][n][what + "_end"] += by


def partitions_of(s, group):
    topic = s["topics"][group["topic"]]
    return [topic["first"] + i for i in range(len(topic["ends"]))] + [group["retry"]]


def cursor_of(s, g, partition):
    group = s["groups"].get(g)
    need(group is not None, f"no group {g}")
    topic = s["topics"][group["topic"]]
    if topic["first"] <= partition < topic["first"] + len(topic["ends"]):
        return group, partition - topic["first"]
    need(partition == group["retry"], f"partition {partition} is none of group {g}")
    return group, len(topic["ends"])


def outstanding(s, r, offset=None):
    """(group, cursor, message) of an outstanding message."""
    group, i = cursor_of(s, r["group"], r["partition"])
    cursor = group["cursors"][i]
    offset = r["offset"] if offset is None else offset
    need(offset in cursor["messages"], f"message {offset} of partition {r['partition']} is not outstanding")
    return group, cursor, cursor["messages"][offset]


def all_messages(s):
    """(group, message) in the order of groups, cursors and offsets."""
    for _, group in sorted(s["groups"].items()):
        for cursor in group["cursors"]:
            for _, m in sorted(cursor["messages"].items()):
                yield group, m


def lease_lasts(s, now):
    return any(m["phase"] == LEASED and m["until"] > now for _, m in all_messages(s))


def message_class(m):
    a, limit = m["attempts"], m["limit"]
    crashes = m["crashes"] if m["phase"] != LEASED else 0
    verdict = m["verdict"] if m["phase"] != LEASED else 0
    if a == M32 or verdict == OVER or m["last"]:
        return EXHAUSTED
    if limit == 0:
        return EXCLUSIVE if verdict == ALONE else PLAIN
    if crashes and (crashes >= 2 * limit or crashes == 65535):
        return EXHAUSTED
    if a >= limit:
        return EXCLUSIVE if verdict else EXHAUSTED
    return EXCLUSIVE if verdict == ALONE or a + 1 == limit and crashes else PLAIN


def counts_of(m):
    """How many nacks, expiries and crashes a message had."""
    return [n + sum(f[0] == cause for f in m["history"]) for cause, n in enumerate(m["earlier"])]


def is_at(message, r, offset):
    wanted = r["group"], r["partition"], offset
    return message is not None and (message["group"], message["partition"], message["offset"]) == wanted


def end_exclusive(s, r, offset):
    """The wait for a message ends, and its exclusive lease is over."""
    for what in ("awaited", "out"):
        if is_at(s[what], r, offset):
            s[what] = None


def next_turn(group):
    group["turns"] += 1
    return group["turns"]


def turn_of(s, group, r, m, offset):
    """A turn of the message that is not an extension. Gives its number."""
    end_exclusive(s, r, offset)
    m["exclusive"] = m["extended"] = False
    return next_turn(group)


def clear_account(m):
    m["crashes"], m["verdict"], m["closes"] = 0, 0, 0


def verdict_after_crash(m, most):
    left = max(most - m["crashes"], 0)
    if most and not left:
        return OVER
    if most and left == 1 and not (m["exclusive"] and 0 < m["limit"] <= m["attempts"]):
        return ALONE
    return 0 if m["exclusive"] else GRACE


def delay_after(group, epoch, partition, offset, n):
    """For how long a message waits after its attempt n, under a lease of this epoch."""
    if n < 2:
        return 0
    options = group["options"]
    if options[15]:
        full = options[15][min(n, len(options[15])) - 1]
    elif options[14]:
        full = min(options[3] * n, options[4])
    else:
        full = min(options[3] << (n - 1) if n <= 128 else M64, options[4]) if options[3] else 0
    if not options[5]:
        return full
    least = -(-full // 2) if options[5] == 1 else 0
    draw = finish(finish(finish(finish(epoch) ^ partition) ^ offset) ^ n)
    return least + draw % (full - least + 1)


def add_failure(group, m, failure, turn):
    cause, time, text = failure
    if len(m["history"]) == 8:
        if m["history"][0][0] <= CRASHED:
            m["earlier"][m["history"][0][0]] += 1
        del m["history"][0]
    m["history"].append([cause, time, text, turn if text else None])
    # An upper bound: what settled messages took with them is still counted, until it matters.
    group["text_bytes"] += len(text.encode())
    if group["text_bytes"] > 4 * MIB:
        drop_texts(group)


def texts_of(group):
    return [f for c in group["cursors"] for m in c["messages"].values() for f in m["history"] if f[2]]


def drop_texts(group):
    entries = sorted(texts_of(group), key=lambda f: f[3])
    total = sum(len(f[2].encode()) for f in entries)
    for f in entries:
        if total <= 4 * MIB:
            break
        total -= len(f[2].encode())
        f[2], f[3] = "", None
        group["texts_dropped"] += 1
    group["text_bytes"] = total


def set_phase(m, phase, **fields):
    m.update(phase=phase, until=0, lsn=0, rank=0, due=0, delay=0, turn=0, backoff=0, last=False)
    m.update(fields)


def jump(s, time):
    for _, m in all_messages(s):
        if m["phase"] == WAITING:
            m["due"] = min(m["due"], time + m["delay"])


def store_time(s, time):
    return min(max(time - s["jumped"], 0), M64)


def is_too_old(s, topic, entry, now):
    return max(now - entry["time"], 0) > s["topics"][topic]["options"][DEDUP_WINDOW]


def drop_old_ids(s, topic, now, most):
    window, old = s["windows"][topic], 0
    while old < min(most, len(window)) and is_too_old(s, topic, window[old], now):
        old += 1
    del window[:old]


def apply_accepted(s, r, lsn):
    where = owner(s, r["partition"])
    need(where is not None and where[0] in ("topic", "schedule"), "an id of no partition of a topic")
    need(r["offset"] < end_of(s, r["partition"]), "an id of a message that is not there")
    topic = where[1]
    with_window = set(s["windows"]) | {topic}
    need(sum(s["topics"][t]["options"][DEDUP_IDS] for t in with_window) <= MOST_IDS, "too many ids")
    window = s["windows"].setdefault(topic, [])
    same = [entry for entry in window if entry["id"] == r["id"]]
    need(not same or is_too_old(s, topic, same[-1], r["time"]), "an id that is remembered")
    drop_old_ids(s, topic, r["time"], 8)
    if len(window) == s["topics"][topic]["options"][DEDUP_IDS]:
        del window[0]
    entry = {n: r[n] for n in ("partition", "offset", "id", "body", "time")}
    window.append({**entry, "epoch": s["epoch"], "lsn": lsn})


def apply_sequenced(s, r):
    need(r["topic"] in s["topics"], f"no topic {r['topic']}")
    producers = s["producers"].get(r["topic"], {})
    need(r["sequence"] == producers.get(r["text"], -1) + 1, "a sequence that is not the next")
    count = sum(len(all_of) for all_of in s["producers"].values())
    need(r["text"] in producers or count < MOST_NAMED, "too many producers")
    s["producers"].setdefault(r["topic"], {})[r["text"]] = r["sequence"]


def is_settled(group, i, offset, key):
    cursor, (first, _) = group["cursors"][i], group["counted"].get((key, i), (NOWHERE, 0))
    return offset < cursor["next"] and offset not in cursor["messages"] and offset < first


def is_without_groups(s, partition):
    where = owner(s, partition)
    return where is not None and where[0] == "topic" and all(g["topic"] != where[1] for g in s["groups"].values())


def is_kept(s, t, i, offset, lsn):
    """Whether a topic without groups keeps a message."""
    topic, held = s["topics"][t], [hold[1] for _, hold in s["named"].values() if hold and hold[0] == t]
    kind, most, end = topic["options"][RETENTION], topic["options"][RETAINED], topic["ends"][i]
    if not held and kind not in (BY_AGE, BY_COUNT):
        return True
    kept = {0: NOWHERE, 1: 0, BY_COUNT: max(end - most, 0), BY_AGE: topic["ages"] and topic["ages"]["kept"][i]}[kind]
    return offset >= kept or bool(held) and lsn >= min(held)


def is_pending(s, partition, offset, k):
    where = owner(s, partition)
    if where is None or where[0] not in ("topic", "schedule"):
        return False
    what, topic, i = where
    if what == "schedule":
        return offset in s["topics"][topic]["schedule"]["entries"]
    groups = [g for g in s["groups"].values() if g["topic"] == topic]
    if not groups:
        return is_kept(s, topic, i, offset, k["lsn"])
    return any(not is_settled(g, i, offset, k["message key"]) for g in groups)


def settle_replaced(s, partition, offset):
    """The groups that have tried what is replaced are done with it."""
    _, topic, i = owner(s, partition)
    for g, group in s["groups"].items():
        message = group["cursors"][i]["messages"].get(offset) if group["topic"] == topic else None
        if message and message["phase"] != PARKED:
            settle(s, {"group": g, "partition": partition}, group["cursors"][i], offset)


def apply_key_taken(s, r, lsn):
    """Record 35: a message has a unique key."""
    where = owner(s, r["partition"])
    need(where is not None and where[0] in ("topic", "schedule"), "a unique key in no partition of a topic")
    need(r["offset"] < end_of(s, r["partition"]), "a unique key of a message that is not there")
    at = r["partition"], r["offset"]
    taken = {"key": r["key"], "message key": r["message key"], "replaced": 0, "epoch": s["epoch"], "lsn": lsn}
    is_there = is_pending(s, *at, taken)
    need(is_there or is_without_groups(s, at[0]), "a unique key of a message that is not pending")
    need(at not in s["keys"], "a second unique key")
    has_it = [place for place, k in s["keys"].items() if k["key"] == r["key"] and not k["replaced"]]
    is_gone = not has_it and r["replaced"] and is_without_groups(s, r["replaced"][0])
    need(is_gone or has_it == ([r["replaced"]] if r["replaced"] else []), "a unique key that another message has")
    need(len(s["keys"]) < MOST_KEYS, "too many unique keys")
    if has_it:
        need(owner(s, r["replaced"][0])[0] == "topic", "a message for later is replaced")
        settle_replaced(s, *r["replaced"])
        s["keys"][r["replaced"]]["replaced"] = 1
        if not is_pending(s, *r["replaced"], s["keys"][r["replaced"]]):
            del s["keys"][r["replaced"]]
    if is_there:
        s["keys"][at] = taken


def follow_keys(s, r, lsn):
    """What a record does to the unique keys of messages that it moves or settles."""
    if r["kind"] == 29:
        moved = s["keys"].pop((r["partition"], r["offset"]), None)
        to = r["copy"] and (r["copy"]["partition"], r["copy"]["offset"])
        moved = moved and {**moved, "epoch": s["epoch"], "lsn": lsn}
        if moved and to and is_pending(s, *to, moved):
            s["keys"][to] = moved
    if s["keys"]:
        s["keys"] = {at: k for at, k in s["keys"].items() if is_pending(s, *at, k)}


def encode_keys(s):
    out = varint(len(s["keys"]))
    for (partition, offset), k in sorted(s["keys"].items()):
        out += varint(partition) + varint(offset) + k["key"] + k["message key"] + bytes([k["replaced"]])
        out += varint(k["epoch"]) + varint(k["lsn"])
    return out


def decode_keys(c, s):
    before = (-1, 0)
    for _ in range(c.count(29)):
        at, key, message_key, replaced = (c.varint(), c.varint()), bytes(c.take(16)), bytes(c.take(8)), c.u8()
        need(before < at and replaced < 2, "a unique key")
        k = {"key": key, "message key": message_key, "replaced": replaced, "epoch": c.varint(), "lsn": c.varint()}
        need(owner(s, at[0]) is not None and at[1] < end_of(s, at[0]), "a unique key of a message that is not there")
        need(is_without_groups(s, at[0]) or is_pending(s, *at, k), "a unique key of a message that is not pending")
        need(not replaced or owner(s, at[0])[0] == "topic", "a message for later is replaced")
        s["keys"][at], before = k, at
    own = [k["key"] for k in s["keys"].values() if not k["replaced"]]
    need(len(set(own)) == len(own) and len(s["keys"]) <= MOST_KEYS, "a unique key of two messages")


def apply_stream(s, r):
    """Records 24 to 26, of streams."""
    where = owner(s, r["partition"])
    need(where is not None and where[0] == "topic", "a stream in no partition of a topic")
    need(s["topics"][where[1]]["options"][STREAMS] == 1, "a stream in a topic without streams")
    if r["kind"] != 24:
        if r["kind"] == 25:
            need(0 < r["first"] <= r["next"] <= VERSIONS, "a stream that is truncated beyond its end")
        else:
            need(r["first"] <= r["version"] < r["next"] <= VERSIONS, "a snapshot of a version that is not there")
        note = r["note"]
        need(owner(s, note["partition"]) == ("notes", where[1], 0), "a note in another partition")
        need(note["offset"] == end_of(s, note["partition"]) != M64, "a note that is not at the end of its partition")
        grow(s, note["partition"], 1)
        return
    need(r["first"] <= r["version"], "an event below the first of its stream")
    need(r["version"] + r["count"] <= VERSIONS, "too many events in a stream")
    need(r["base"] == end_of(s, r["partition"]) and r["base"] + r["count"] <= M64, "appended not at the end")
    need(r["count"] > 0, "nothing is appended")
    grow(s, r["partition"], r["count"])


def scheduled_count(s):
    return sum(len(t["schedule"]["entries"]) for t in s["topics"].values() if t["schedule"])


def apply_schedule(s, r):
    """Records 27 to 29, of messages for later."""
    if r["kind"] == 27:
        topic = s["topics"].get(r["topic"])
        need(topic is not None and topic["schedule"] is None, "no topic, or one with scheduled messages")
        need(r["partition"] == s["next_partition"], "not the next number")
        need(partitions_there(s) + 1 <= 1 << 24, "too many partitions")
        topic["schedule"] = {"partition": r["partition"], "end": 0, "entries": {}}
        s["next_partition"] += 1
        return
    where = owner(s, r["partition"])
    need(where is not None and where[0] == "schedule", "scheduled in no such partition")
    topic = s["topics"][where[1]]
    entries = topic["schedule"]["entries"]
    if r["kind"] == 28:
        need(r["offset"] < topic["schedule"]["end"], "a message that is not there is scheduled")
        index = r["to"] - topic["first"]
        need(0 <= index < len(topic["ends"]), "scheduled for another topic")
        need((r["offset"] in entries) == r["again"], "scheduled twice, or again without having been")
        need(r["again"] or scheduled_count(s) < MOST_SCHEDULED, "too many scheduled messages")
        epoch = entries[r["offset"]][2] if r["again"] else s["epoch"]
        entries[r["offset"]] = (index, r["due"], epoch)
        return
    need(r["offset"] in entries, "not scheduled")
    if r["copy"]:
        copy = r["copy"]
        need(copy["partition"] == topic["first"] + entries[r["offset"]][0], "a scheduled message went elsewhere")
        check_copy(s, copy)
        grow(s, copy["partition"], 1)
    del entries[r["offset"]]


def new_ages(options, partitions):
    return {"kept": [0] * partitions, "marks": []} if options[RETENTION] == BY_AGE else None


def apply_marked(s, r):
    """Record 32: how far a topic has come that keeps its messages for a time."""
    topic = s["topics"].get(r["topic"])
    need(topic is not None and topic["ages"] is not None, "a mark of no topic that keeps its messages for a time")
    ages, ends = topic["ages"], list(topic["ends"])
    marks, last = ages["marks"], ages["marks"][-1][1] if ages["marks"] else ages["kept"]
    need(not marks or marks[-1][0] <= r["time"], "a mark before the one before")
    over = [m for m in marks if m[0] + topic["options"][RETAINED] <= r["time"]]
    if over:
        ages["kept"] = over[-1][1]
    apart = not marks or marks[-1][0] + -(-topic["options"][RETAINED] // 16) <= r["time"]
    ages["marks"] = marks[len(over):] + ([(r["time"], ends)] if ends != last and apart else [])
    need(len(ages["marks"]) <= MOST_MARKS, "more marks than a topic has")


def encode_ages(s):
    some = {n: t["ages"] for n, t in s["topics"].items() if t["ages"]}
    out, at = varint(len(some)), 0
    for n in sorted(some):
        out, at = out + varint(n - at) + b"".join(map(varint, some[n]["kept"])) + varint(len(some[n]["marks"])), n + 1
        for time, ends in some[n]["marks"]:
            out += varint(time) + b"".join(map(varint, ends))
    return out


def decode_ages(c, s):
    at = 0
    for _ in range(c.count(3)):
        number = at + c.varint()
        at = number + 1
        topic = s["topics"].get(number)
        need(topic is not None and topic["options"][RETENTION] == BY_AGE, "the age of a topic that keeps nothing for a time")
        last = topic["ages"]["kept"] = [c.varint() for _ in topic["ends"]]
        need(all(a <= b for a, b in zip(last, topic["ends"])), "kept from beyond the end")
        marks = topic["ages"]["marks"] = []
        for _ in range(c.count(2)):
            time, ends = c.varint(), [c.varint() for _ in topic["ends"]]
            need(not marks or marks[-1][0] <= time, "marks that do not follow each other")
            need(ends != last and all(a <= b <= e for a, b, e in zip(last, ends, topic["ends"])), "a mark of other messages")
            marks.append((time, ends))
            last = ends
        need(len(marks) <= MOST_MARKS, "more marks than a topic has")
        topic["ages"]["told"] = True
    need(all(t["ages"] is None or t["ages"].pop("told", False) for t in s["topics"].values()), "a topic without its age")


def apply_cursor(s, r):
    """Records 20 and 21, of named cursors."""
    if r["kind"] == 21:
        need(r["text"] in s["named"], "no such named cursor")
        del s["named"][r["text"]]
        return
    need(r["text"] in s["named"] or len(s["named"]) < MOST_NAMED, "too many named cursors")
    need(r["hold"] is None or r["hold"][0] < s["next_topic"], "a named cursor that holds no topic")
    s["named"][r["text"]] = (r["value"], r["hold"])


def check_options(s, o):
    need(1 <= o[1] <= TEN_YEARS, "a visibility timeout")
    need(o[2] <= M32, "max attempts")
    need(o[3] <= TEN_YEARS and o[4] <= TEN_YEARS, "delays")
    need(o[5] in (0, 1, 2), "jitter")
    need(max(o[11], o[12], o[13]) <= M32, "a limit of failures")
    need(o[16] in (0, 1) and o[17] <= 1 << 20, "paused, or max in flight")
    need(o[18] == o[19] == o[20] == 0 or (1 <= o[18] <= M32 and 1 <= o[19] <= TEN_YEARS and 1 <= o[20] <= M32), "a rate")
    need(o[14] in (0, 1) and not (o[14] and o[15]), "growth")
    need(not o[15] or (o[15][0] == o[3] and max(o[15]) == o[4]), "a list of delays")
    need(1 <= o[6] <= 1 << 20, "max outstanding")
    need(o[7] <= 255, "max closes")
    need(o[8] <= s["next_topic"], "notices to a topic that never was")
    need(o[9] <= 2 and 1 <= o[10] <= 65536 and (o[9] or o[10] == 1), "an order")


def messages_of(group):
    return [(i, o, m) for i, c in enumerate(group["cursors"]) for o, m in c["messages"].items()]


def count_parked(group):
    return sum(m["phase"] == PARKED for _, _, m in messages_of(group))


def park(group, cursor, offset, key):
    m = new_message(0, group["options"][2])
    m.update(phase=PARKED, turn=next_turn(group), key=None if key in (NO_KEY, LOST_KEY) else key)
    cursor["messages"][offset] = m


def apply_considered(s, r):
    group, i = cursor_of(s, r["group"], r["partition"])
    cursor, is_retry, keys, counted = group["cursors"][i], i == len(group["cursors"]) - 1, r["keys"], set(r["counted"])
    is_ahead = group["options"][21] and not is_retry and all(key == NO_KEY for key in keys)
    need(group["options"][9] == BY_KEY or is_ahead, "keys that a group does not go by")
    need(r["first"] == cursor["next"], "keys of other messages than the next")
    need(r["first"] + len(keys) <= end_of(s, r["partition"]), "keys of messages that are not there")
    need(all(n < len(keys) and keys[n] != NO_KEY and not is_retry for n in counted), "what cannot be counted is")
    need(count_parked(group) + len(keys) - len(counted) <= MOST_PARKED, "more messages are parked than may be")
    for n, key in enumerate(keys):
        if n in counted:
            first, count = group["counted"].get((key, i), (cursor["next"], 0))
            group["counted"][key, i] = first, count + 1
        else:
            park(group, cursor, cursor["next"], key)
        cursor["next"] += 1
    if not is_retry:
        group["cursor"] = i + 1


def apply_filtered(s, r):
    group, i = cursor_of(s, r["group"], r["partition"])
    cursor = group["cursors"][i]
    need(group["options"][21], "what does not pass a filter that there is not")
    need(i < len(group["cursors"]) - 1, "a redriven message that does not pass")
    need(r["first"] == cursor["next"], "other messages than the next do not pass")
    need(r["first"] + r["count"] <= end_of(s, r["partition"]), "messages that are not there do not pass")
    cursor["next"] += r["count"]
    group["cursor"] = i + 1


def apply_dropped(s, r):
    group, i = cursor_of(s, r["group"], r["partition"])
    cursor = group["cursors"][i]
    need(i < len(group["cursors"]) - 1, "a redriven message is dropped")
    need(not any(j == i for _, j in group["counted"]), "messages are dropped behind others that are only counted")
    need(r["first"] == cursor["next"], "other messages than the next are dropped")
    need(r["first"] + r["count"] <= end_of(s, r["partition"]), "messages that are not there are dropped")
    cursor["next"] += r["count"]
    group["dropped"] = min(group["dropped"] + r["count"], M64)


def hungry_within(group, i, first, end):
    """The keys that are recalled, with the first offset and the count of each."""
    busy, in_flight = set(), {}
    for _, _, m in messages_of(group):
        if m["phase"] == PARKED:
            busy.add(m["key"])
        else:
            in_flight[m["key"]] = in_flight.get(m["key"], 0) + 1
    found = sorted((first_of, int.from_bytes(key, "little"), key) for (key, j), (first_of, _) in group["counted"].items()
                   if j == i and first <= first_of < end and key not in busy
                   and in_flight.get(key, 0) < group["options"][10])
    return {key: group["counted"][key, i] for _, _, key in found[:MOST_RECALLED]}


def apply_recalled(s, r):
    group, i = cursor_of(s, r["group"], r["partition"])
    cursor, keys = group["cursors"][i], r["keys"]
    end = r["first"] + len(keys)
    need(group["options"][9] == BY_KEY and end <= cursor["next"], "recalled without a look before")
    hungry = hungry_within(group, i, r["first"], end)
    need(hungry, "recalled where no key waits")
    some = [(r["first"] + n, key) for n, key in enumerate(keys) if key != NO_KEY]
    need(all(o not in cursor["messages"] for o, _ in some), "recalled, and outstanding")
    need(all(key == LOST_KEY or key in hungry and hungry[key][0] <= o for o, key in some), "recalled, and not counted")
    left = {key: count - sum(k == key for _, k in some) for key, (_, count) in hungry.items()}
    need(all(n >= 0 for n in left.values()), "more are recalled than were counted")
    need(count_parked(group) + len(some) <= MOST_PARKED, "more messages are parked than may be")
    for o, key in some:
        park(group, cursor, o, key)
    for key, count in left.items():
        count = min(count, cursor["next"] - end)
        if count:
            group["counted"][key, i] = end, count
        else:
            del group["counted"][key, i]


def check_started(group, i, offsets):
    """Those of a lease that are parked are the first of their keys, and there is room for them."""
    started = [group["cursors"][i]["messages"][o] for o in offsets if group["cursors"][i]["messages"][o]["phase"] == PARKED]
    retry, everything = len(group["cursors"]) - 1, messages_of(group) if started else []
    by_partition = group["options"][9] == BY_PARTITION
    for key in {i} if by_partition and started else {m["key"] for m in started if m["key"] is not None}:
        of_key = [(j != retry, m["turn"], m) for j, _, m in everything if (j if by_partition else m["key"]) == key]
        line = [m for _, _, m in sorted((x for x in of_key if x[2]["phase"] == PARKED), key=lambda x: x[:2])]
        mine = [m for m in started if by_partition or m["key"] == key]
        room = group["options"][10] - (len(of_key) - len(line))
        need(len(mine) <= room, "a lease of more messages of a key than may be in flight")
        need(all(a is b for a, b in zip(mine, line)), "a lease of a message that waits for another of its key")
    out = len(everything) - count_parked(group)
    need(not started or out + len(started) <= group["options"][6], "more than max outstanding")


def check_leased_again(s, r, offsets, now):
    """The preconditions of a lease of messages that were leased before. Gives the source of the last one."""
    source = None
    for o in offsets:
        m = outstanding(s, r, o)[2]
        need(r["attempt"] == m["attempts"] + 1, "an attempt that is not the next")
        k = message_class(m)
        need(k == EXCLUSIVE or (k == PLAIN and not r["exclusive"]), f"a lease of a message that is {k}")
        if m["phase"] == LEASED:
            need(min(m["until"] + m["backoff"], M64) <= now, "a lease over one that lasts, or before its backoff is over")
            source = 0
        elif m["phase"] == WAITING:
            need(r["attempt"] == 1 or m["due"] <= r["time"], "a lease before the due time")
            source = 1
        else:
            source = 2 if m["attempts"] else 3
    return source


def apply_leased(s, r, lsn, ranks):
    group, i = cursor_of(s, r["group"], r["partition"])
    cursor, options, rank = group["cursors"][i], group["options"], ranks.get(r["group"], 0)
    now = r["until"] - options[1]
    need(now >= 0, "a lease that ends before it could begin")
    need(r["attempt"] != 1 or r["time"] == 0, "a first attempt with a time")
    offsets = range(r["first"], r["first"] + r["count"])
    since, source, again = now, 3, r["first"] != cursor["next"]
    if again:
        need(r["first"] < cursor["next"] and r["count"] <= len(cursor["messages"]), "a lease of what is not outstanding")
        source = check_leased_again(s, r, offsets, now)
        check_started(group, i, offsets)
        need(not r["exclusive"] or (r["count"] == 1 and not lease_lasts(s, now)), "an exclusive lease beside others")
        if is_at(s["awaited"], r, r["first"]):
            since = s["awaited"]["since"]
    else:
        need(r["attempt"] == 1 and not r["exclusive"], "a first lease on another attempt, or exclusive")
        need(offsets.stop <= end_of(s, r["partition"]), "a lease of messages that are not there")
        need(options[9] != BY_KEY, "a lease of a message that was not considered")
        out_here = len(cursor["messages"]) + r["count"]
        is_behind = any(m["phase"] == PARKED for m in cursor["messages"].values())
        need(options[9] != BY_PARTITION or not is_behind and out_here <= options[10], "more of a partition than may be in flight")
        held = sum(len(c["messages"]) for c in group["cursors"]) - count_parked(group)
        need(held + r["count"] <= options[6], "more than max outstanding")
        cursor["next"] += r["count"]
        cursor["messages"].update((o, new_message(1, options[2])) for o in offsets)
        for o in offsets:
            cursor["messages"][o]["last"] = options[12] == 1
        group["cursor"] = (i + 1) % len(group["cursors"])
    group["source"] = source
    out = s["out"]
    if not r["exclusive"] and out and out["until"] > now and not is_at(out, r, r["first"]):
        outstanding(s, out)[2]["exclusive"] = False
        s["out"] = None
    for o in offsets:
        m = cursor["messages"][o]
        if again:
            had_ended = m["phase"] == LEASED
            turn = turn_of(s, group, r, m, o)
            if had_ended:
                add_failure(group, m, (EXPIRED, r["time"], ""), turn)
                clear_account(m)
        set_phase(m, LEASED, until=r["until"], lsn=lsn, rank=rank)
        m.update(attempts=r["attempt"], limit=options[2], exclusive=r["exclusive"], extended=False)
        m["last"] = 0 < options[12] <= counts_of(m)[EXPIRED] + 1
        delay = 0 if message_class(m) == EXHAUSTED else delay_after(group, s["epoch"], r["partition"], o, m["attempts"])
        m["backoff"] = min(delay, M32)
    if r["exclusive"]:
        s["out"] = {"group": r["group"], "partition": r["partition"], "offset": r["first"], "since": since,
                    "until": r["until"]}
    ranks[r["group"]] = rank + 1
    group["rank_lsn"], group["rank"] = lsn, rank


def settle(s, r, cursor, offset):
    end_exclusive(s, r, offset)
    del cursor["messages"][offset]


def apply_one_message(s, r, kind):
    """Records 4 to 8 and 10."""
    group, _, m = outstanding(s, r)
    leased = m["phase"] == LEASED
    if kind in (4, 5, 6, 7):
        need(leased, "the message is not leased")
    if kind == 4:
        cause, time, _ = r["failure"]
        need(not 0 < m["limit"] <= m["attempts"], "nacked at the last attempt")
        need(not 0 < group["options"][11] <= counts_of(m)[NACKED] + 1, "nacked for the last time")
        need(cause == NACKED and r["due"] == min(time + r["delay"], M64), "cause or due of a nack")
        turn = turn_of(s, group, r, m, r["offset"])
        clear_account(m)
        if r["delay"]:
            set_phase(m, WAITING, due=r["due"], delay=r["delay"])
        else:
            set_phase(m, READY, turn=turn)
        add_failure(group, m, r["failure"], turn)
    elif kind == 5:
        need(r["until"] > m["until"], "an extension that is none")
        next_turn(group)
        m["until"], m["extended"] = r["until"], True
        if is_at(s["out"], r, r["offset"]):
            s["out"]["until"] = r["until"]
    elif kind == 6:
        turn = turn_of(s, group, r, m, r["offset"])
        m["attempts"] -= 1
        m["closes"] = 0
        set_phase(m, READY, turn=turn)
    elif kind == 7:
        need(r["delay"] > 0, "unreadable without a delay")
        turn_of(s, group, r, m, r["offset"])
        m["attempts"] -= 1
        m["closes"] = 0
        set_phase(m, WAITING, due=r["due"], delay=r["delay"])
    elif kind == 10:
        need(message_class(m) == EXHAUSTED and r["delay"] > 0, "postponed")
        turn = turn_of(s, group, r, m, r["offset"])
        if leased:
            need(r["due"] >= r["delay"], "postponed to before its delay")
            add_failure(group, m, (EXPIRED, r["due"] - r["delay"], ""), turn)
            clear_account(m)
            m["verdict"] = OVER if m["last"] else 0
        set_phase(m, WAITING, due=r["due"], delay=r["delay"])
    else:
        need(message_class(m) == EXCLUSIVE, "awaited, but not exclusive")
        need(lease_lasts(s, r["since"]), "awaited while no lease lasts")
        s["awaited"] = {n: r[n] for n in ("group", "partition", "offset", "since")}


def check_copy(s, copy):
    need(copy["redrives"] <= 16, "more than 16 redrives")
    where = owner(s, copy["partition"])
    need(where is not None, "a copy to a partition of nobody")
    need(copy["offset"] == end_of(s, copy["partition"]) != M64, "a copy that is not at the end of its partition")
    return where


def apply_copy(s, r):
    copy, group = r["copy"], s["groups"].get(r["group"])
    need(group is not None, f"no group {r['group']}")
    where = check_copy(s, copy)
    if r["kind"] == 9:
        need(copy["partition"] == group["retry"] + 1, "a copy that is not in the dead partition")
        _, cursor, m = outstanding(s, r)
        need(m["phase"] == LEASED or message_class(m) == EXHAUSTED, "dead-lettered, but not leased or exhausted")
        settle(s, r, cursor, r["offset"])
    else:
        need(where[0] == "topic" or copy["partition"] == group["retry"], "a copy to another's partition")
        settle_dead_letter(group, r["dead_letter"])
    grow(s, copy["partition"], 1)


def settle_dead_letter(group, letter):
    need(letter < group["dead_end"] and letter not in group["settled"], f"no dead letter {letter}")
    group["settled"].add(letter)


def end_lease(s, r, group, where, m):
    """What `opened` does to a message that is leased."""
    turn, cause = next_turn(group), CLOSED if r["clean"] else CRASHED
    charged = not r["clean"] or m["closes"] >= group["options"][7]
    if not charged:
        m["attempts"] -= 1
        m["closes"] += 1
    elif r["clean"]:
        m["crashes"], m["verdict"] = 0, 0
    else:
        m["crashes"], m["closes"] = min(m["crashes"] + 1, 65535), 0
        m["verdict"] = verdict_after_crash(m, group["options"][13])
    m["exclusive"] = m["extended"] = False
    set_phase(m, READY, turn=turn)
    if charged:
        add_failure(group, m, (cause, r["time"], ""), turn)
        delay = delay_after(group, s["epoch"], *where, m["attempts"])
        if delay and message_class(m) != EXHAUSTED:
            set_phase(m, WAITING, due=min(r["time"] + delay, M64), delay=delay)


def apply_opened(s, r):
    need(r["epoch"] > s["epoch"], "an epoch that is not above all before")
    for _, group in sorted(s["groups"].items()):
        for partition, cursor in zip(partitions_of(s, group), group["cursors"]):
            for offset, m in sorted(cursor["messages"].items()):
                if m["phase"] == LEASED:
                    end_lease(s, r, group, (partition, offset), m)
    s["epoch"] = r["epoch"]
    for topic in s["windows"]:
        drop_old_ids(s, topic, store_time(s, r["time"]), NOWHERE)
    for group in s["groups"].values():
        group["rank_lsn"] = group["rank"] = 0
    s["awaited"] = s["out"] = None
    jump(s, r["time"])


def remove_group(s, g):
    del s["groups"][g]
    for what in ("awaited", "out"):
        if s[what] and s[what]["group"] == g:
            s[what] = None


def apply_sought(s, r):
    """What a group has in progress of its topic goes, but for what stays from one place up to its start."""
    need(r["group"] in s["groups"], f"no group {r['group']}")
    group, ends = s["groups"][r["group"]], s["topics"][s["groups"][r["group"]]["topic"]]["ends"]
    need(len(r["starts"]) == len(ends) and all(a <= b for a, b in zip(r["starts"], ends)), "starts of a seek")
    for cursor, a, b in zip(group["cursors"], r["from"], r["starts"]):
        stays = {o: m for o, m in sorted(cursor["messages"].items()) if a <= o < b}
        cursor["next"], cursor["messages"] = b, stays
        for o, m in stays.items():
            if m["phase"] != PARKED:
                stays[o] = {**new_message(0, group["options"][2]), "key": m["key"], "phase": READY, "turn": next_turn(group)}
            else:
                m["limit"] = group["options"][2]
    group["counted"] = {}
    for what in ("awaited", "out"):
        if s[what] and s[what]["group"] == r["group"] and s[what]["partition"] != group["retry"]:
            s[what] = None


def partitions_len(count, options):
    return count + options[STREAMS]


def partitions_there(s):
    topics = sum(partitions_len(len(t["ends"]), t["options"]) + (t["schedule"] is not None) for t in s["topics"].values())
    return topics + 2 * len(s["groups"])


def apply_names(s, r, kind):
    """Records 15 to 19."""
    there = partitions_there(s)
    if kind == 15:
        need(r["topic"] == s["next_topic"] and r["first"] == s["next_partition"], "not the next numbers")
        need(1 <= r["count"] <= 65536, "partitions of a topic")
        many = partitions_len(r["count"], r["options"])
        need(there + many <= 1 << 24 and len(s["topics"]) < 1 << 20, "too many topics or partitions")
        need(all(t["name"] != r["text"] for t in s["topics"].values()), "a topic's name twice")
        s["topics"][r["topic"]] = {"name": r["text"], "first": r["first"], "options": r["options"], "ends": [0] * r["count"],
                                     "notes": 0, "schedule": None, "ages": new_ages(r["options"], r["count"])}
        s["next_topic"] += 1
        s["next_partition"] += many
    elif kind == 16:
        topic = s["topics"].get(r["topic"])
        need(topic is not None, "a group of no topic")
        need(r["group"] == s["next_group"] and r["retry"] == s["next_partition"], "not the next numbers")
        need(there + 2 <= 1 << 24 and len(s["groups"]) < 1 << 20, "too many groups or partitions")
        need(all(g["name"] != r["text"] for g in s["groups"].values() if g["topic"] == r["topic"]),
             "a group's name twice")
        check_options(s, r["options"])
        need(len(r["starts"]) == len(topic["ends"]), "starts")
        need(all(a <= b for a, b in zip(r["starts"], topic["ends"])), "a start above the end")
        s["groups"][r["group"]] = new_group(r["text"], r["topic"], r["options"], r["retry"], r["starts"] + [0])
        s["next_group"] += 1
        s["next_partition"] += 2
    elif kind == 17:
        need(r["topic"] in s["topics"], f"no topic {r['topic']}")
        for g in [g for g, group in s["groups"].items() if group["topic"] == r["topic"]]:
            remove_group(s, g)
        del s["topics"][r["topic"]]
        s["windows"].pop(r["topic"], None)
        s["producers"].pop(r["topic"], None)
    elif kind == 18:
        need(r["group"] in s["groups"], f"no group {r['group']}")
        remove_group(s, r["group"])
    else:
        need(r["group"] in s["groups"], f"no group {r['group']}")
        check_options(s, r["options"])
        before = s["groups"][r["group"]]["options"]
        need(all(before[n] == r["options"][n] for n in (9, 10)), "another order")
        s["groups"][r["group"]]["options"] = r["options"]
        if r["options"][16] and s["awaited"] and s["awaited"]["group"] == r["group"]:
            s["awaited"] = None


def apply_record(s, r, lsn, ranks):
    """Checks the precondition of a record and does what it asks for. Bad where the precondition does not hold."""
    kind = r["kind"]
    need(s["epoch"] or kind == 13, "a log whose first record is not `opened`")
    if kind == 1:
        where = owner(s, r["partition"])
        need(where is not None and where[0] in ("topic", "schedule"), "published to no partition of a topic")
        need(r["base"] == end_of(s, r["partition"]) and r["base"] + r["count"] <= M64, "published not at the end")
        grow(s, r["partition"], r["count"])
    elif kind in (24, 25, 26):
        apply_stream(s, r)
    elif kind == 32:
        apply_marked(s, r)
    elif kind in (27, 28, 29):
        apply_schedule(s, r)
    elif kind == 2:
        apply_leased(s, r, lsn, ranks)
    elif kind == 30:
        apply_considered(s, r)
    elif kind == 31:
        apply_recalled(s, r)
    elif kind == 33:
        apply_filtered(s, r)
    elif kind == 34:
        apply_dropped(s, r)
    elif kind == 36:
        apply_sought(s, r)
    elif kind == 3:
        group, i = cursor_of(s, r["group"], r["partition"])
        need(r["count"] <= len(group["cursors"][i]["messages"]), "acked more than are outstanding")
        offsets = range(r["first"], r["first"] + r["count"])
        for o in offsets:
            need(outstanding(s, r, o)[2]["phase"] == LEASED, f"acked {o}, which is not leased")
        for o in offsets:
            settle(s, r, group["cursors"][i], o)
    elif kind in (4, 5, 6, 7, 8, 10):
        apply_one_message(s, r, kind)
    elif kind in (9, 11):
        apply_copy(s, r)
    elif kind == 12:
        need(r["group"] in s["groups"], f"no group {r['group']}")
        settle_dead_letter(s["groups"][r["group"]], r["dead_letter"])
    elif kind == 13:
        apply_opened(s, r)
        ranks.clear()
    elif kind == 14:
        jump(s, r["time"])
        s["jumped"] = min(max(s["jumped"] + r["by"], -1 << 63), (1 << 63) - 1)
    elif kind in (20, 21):
        apply_cursor(s, r)
    elif kind == 22:
        apply_accepted(s, r, lsn)
    elif kind == 23:
        apply_sequenced(s, r)
    elif kind == 35:
        apply_key_taken(s, r, lsn)
    else:
        apply_names(s, r, kind)
    follow_keys(s, r, lsn)


def replay(s, frames):
    for item in frames:
        f, where = item["f"], (item["c"]["name"], item["f"]["at"], [item["lsn"], item["end"]])
        if f["control"]:
            continue
        ranks = {}
        try:
            records, error = decode_records(f["head"])
            if error:
                raise error
            for r in records:
                apply_record(s, r, item["lsn"], ranks)
        except Newer as e:
            raise StoreError("NewerFormat", *where, str(e)) from e
        except Bad as e:
            raise StoreError("Corrupt", *where, str(e)) from e


# ---------------------------------------------------------------- the state as bytes

def encode_options(options, known):
    value = lambda v: v.encode() if isinstance(v, str) else b"".join(map(varint, v)) if isinstance(v, tuple) else varint(v)
    written = [(t, value(options[t])) for t in sorted(known) if options[t] != known[t]]
    return varint(len(written)) + b"".join(varint(t) + varint(len(v)) + v for t, v in written)


def encode_message(m, gap, group, last):
    follows = False
    if m["phase"] == LEASED:
        lease = (m["until"], m["lsn"], m["rank"])
        follows, last["lease"] = last["lease"] == lease, lease
        phase = b"".join(map(varint, lease))
    elif m["phase"] == WAITING:
        phase = varint(m["due"]) + varint(m["delay"])
    else:
        follows, last["turn"] = last["turn"] is not None and last["turn"] + 1 == m["turn"], m["turn"]
        phase = varint(m["turn"])
    limit, flags = m["limit"] != group["options"][2], m["phase"]
    for bit, holds in ((4, follows), (8, m["crashes"]), (0x10, m["verdict"] == GRACE), (0x20, bool(m["history"])),
                       (0x40, m["exclusive"]), (0x80, m["extended"]), (0x100, limit), (0x200, m["closes"]),
                       (0x400, m["key"]), (0x800, m["verdict"] == ALONE), (0x1000, m["verdict"] == OVER), (0x2000, m["last"])):
        flags |= bit if holds else 0
    out = varint(flags) + varint(gap) + varint(m["attempts"]) + (varint(m["limit"]) if limit else b"")
    out += varint(m["crashes"]) if m["crashes"] else b""
    out += varint(m["closes"]) if m["closes"] else b""
    out += varint(m["backoff"]) if m["phase"] == LEASED and m["attempts"] > 1 else b""
    out += m["key"] or b""
    out += b"" if follows else phase
    if m["history"]:
        out += varint(len(m["history"]))
        for cause, time, text, turn in m["history"]:
            out += bytes([cause]) + varint(time) + text_bytes(text) + (varint(turn) if text else b"")
        out += b"".join(map(varint, m["earlier"])) if len(m["history"]) == 8 else b""
    return out


def encode_group(s, group):
    topic = s["topics"][group["topic"]]
    out = text_bytes(group["name"]) + varint(group["topic"]) + encode_options(group["options"], OPTIONS)
    for n in (group["retry"], group["retry_end"], group["dead_end"], group["turns"],
              4 * group["cursor"] + group["source"], group["rank_lsn"], group["rank"], group["texts_dropped"],
              group["dropped"]):
        out += varint(n)
    out += group["settled"].encode()
    for c, end in zip(group["cursors"], topic["ends"] + [group["retry_end"]]):
        out += varint(end - c["next"])
    some = [i for i, c in enumerate(group["cursors"]) if c["messages"]]
    out, before, last = out + varint(len(some)), -1, {"lease": None, "turn": None}
    for i in some:
        messages = group["cursors"][i]["messages"]
        out += varint(i - before - 1) + varint(len(messages))
        before, at = i, -1
        for o in sorted(messages):
            out += encode_message(messages[o], o - at - 1, group, last)
            at = o
    if group["options"][9] == BY_KEY:
        out += varint(len(group["counted"]))
        for key, i in sorted(group["counted"], key=lambda at: (int.from_bytes(at[0], "little"), at[1])):
            first, count = group["counted"][key, i]
            out += key + varint(i) + varint(first) + varint(count)
    return out


def encode_state(s):
    out = b"\x01" + b"".join(varint(s[n]) for n in ("epoch", "next_topic", "next_group", "next_partition"))
    out, at = out + varint(len(s["topics"])), 0
    for n in sorted(s["topics"]):
        t = s["topics"][n]
        out += varint(n - at) + text_bytes(t["name"]) + varint(t["first"]) + varint(len(t["ends"]))
        out += encode_options(t["options"], TOPIC_OPTIONS) + b"".join(map(varint, t["ends"] + [t["notes"]] * t["options"][STREAMS]))
        at = n + 1
    out, at = out + varint(len(s["groups"])), 0
    for n in sorted(s["groups"]):
        out += varint(n - at) + encode_group(s, s["groups"][n])
        at = n + 1
    out += bytes([(1 if s["awaited"] else 0) | (2 if s["out"] else 0)])
    for what, names in (("awaited", "group partition offset since"), ("out", "group partition offset since until")):
        if s[what]:
            out += b"".join(varint(s[what][n]) for n in names.split())
    return out + signed(s["jumped"]) + encode_named(s) + encode_ages(s) + encode_keys(s)


def by_name(named):
    """In the order of the names, as bytes."""
    return sorted(named.items(), key=lambda item: item[0].encode("utf-8"))


def encode_schedules(s):
    some = {n: t["schedule"] for n, t in s["topics"].items() if t["schedule"]}
    out, at = varint(len(some)), 0
    for n in sorted(some):
        schedule, next_offset = some[n], 0
        out += varint(n - at) + varint(schedule["partition"]) + varint(schedule["end"]) + varint(len(schedule["entries"]))
        for offset in sorted(schedule["entries"]):
            index, (by_wall, time), epoch = schedule["entries"][offset]
            out += varint(offset - next_offset) + varint(index) + bytes([by_wall]) + varint(time) + varint(epoch)
            next_offset = offset + 1
        at = n + 1
    return out


def encode_named(s):
    """Named cursors, messages for later, windows and producers."""
    out = varint(len(s["named"]))
    for name, (value, hold) in by_name(s["named"]):
        out += text_bytes(name) + value_bytes(value) + bytes([hold is not None]) + b"".join(map(varint, hold or ()))
    out += encode_schedules(s)
    out, at = out + varint(len(s["windows"])), 0
    for topic, window in sorted(s["windows"].items()):
        out, at = out + varint(topic - at) + varint(len(window)), topic + 1
        for e in window:
            out += varint(e["partition"]) + varint(e["offset"]) + e["id"] + e["body"]
            out += varint(e["epoch"]) + varint(e["lsn"]) + varint(e["time"])
    out, at = out + varint(len(s["producers"])), 0
    for topic, producers in sorted(s["producers"].items()):
        out, at = out + varint(topic - at) + varint(len(producers)), topic + 1
        for name, sequence in by_name(producers):
            out += text_bytes(name) + varint(sequence)
    return out


def decode_history(c, group):
    n, history = c.varint(), []
    need(1 <= n <= 8, "a history")
    for _ in range(n):
        cause, time, text = decode_failure(c)
        turn = c.varint() if text else None
        need(turn is None or 1 <= turn <= group["turns"], "the turn of a text")
        history.append([cause, time, text, turn])
    return history, decode_earlier(c, n)


def decode_message(c, group, last):
    flags, gap, attempts = c.varint(), c.varint(), c.v32()
    need(flags < 0x4000, f"flags {flags} of a message")
    m = new_message(attempts, c.v32() if flags & 0x100 else group["options"][2])
    m["phase"], follows = flags & 3, flags & 4
    m["crashes"], m["closes"] = c.varint() if flags & 8 else 0, c.varint() if flags & 0x200 else 0
    need(bool(flags & 8) <= (m["crashes"] > 0) and m["crashes"] < 1 << 16, "crashes")
    need(bool(flags & 0x200) <= (m["closes"] > 0) and m["closes"] < 1 << 8, "closes")
    need(m["crashes"] <= attempts - (m["phase"] == LEASED) or not m["crashes"], "more crashes than attempts")
    m["backoff"] = c.v32() if m["phase"] == LEASED and attempts > 1 else 0
    m["key"] = bytes(c.take(8)) if flags & 0x400 else None
    need(m["key"] != NO_KEY and (m["key"] is None or group["options"][9] == BY_KEY), "a key")
    is_fresh = not (attempts or m["closes"] or flags & 0x20)
    need(m["phase"] != PARKED or is_fresh, "a parked message that was leased")
    m["verdict"], m["last"] = {0: 0, 0x10: GRACE, 0x800: ALONE, 0x1000: OVER}.get(flags & 0x1810), bool(flags & 0x2000)
    need(m["verdict"] is not None and (m["verdict"] != OVER or m["phase"] != LEASED), "a verdict")
    m["exclusive"], m["extended"] = bool(flags & 0x40), bool(flags & 0x80)
    need(m["crashes"] or m["verdict"] not in (GRACE, ALONE), "a verdict of a crash without a crash")
    if m["phase"] == LEASED:
        if not follows:
            last["lease"] = (c.varint(), c.varint(), c.v32())
        need(last["lease"] is not None, "the first leased message follows")
        need(attempts, "a leased message without an attempt")
        m["until"], m["lsn"], m["rank"] = last["lease"]
    elif m["phase"] == WAITING:
        need(not follows, "a waiting message follows")
        m["due"], m["delay"] = c.varint(), c.varint()
        need(m["delay"], "a waiting message without a delay")
    else:
        if not follows:
            last["turn"] = c.varint()
        else:
            need(last["turn"] is not None, "the first ready message follows")
            last["turn"] += 1
        m["turn"] = last["turn"]
        need(m["turn"] <= group["turns"], "a turn that was not")
    need(m["phase"] == LEASED or not (m["exclusive"] or m["extended"] or m["last"]), "flags of a lease without one")
    if flags & 0x20:
        m["history"], m["earlier"] = decode_history(c, group)
    return gap, m


def check_in_flight(group):
    """No more of a key or partition are in flight than the group allows."""
    by, counts = group["options"][9], {}
    parked = [i for i, _, m in messages_of(group) if m["phase"] == PARKED]
    need(by == BY_KEY or all(i < len(group["cursors"]) - 1 for i in parked), "a redriven message that is parked")
    for i, _, m in messages_of(group) if by else ():
        of = i if by == BY_PARTITION else m["key"]
        if m["phase"] != PARKED and of is not None:
            counts[of] = counts.get(of, 0) + 1
    need(all(n <= group["options"][10] for n in counts.values()), "more of a key than may be in flight")


def decode_counted(c, group):
    before = (0, -1)
    for _ in range(c.count(11) if group["options"][9] == BY_KEY else 0):
        key, i, first, count = bytes(c.take(8)), c.v32(), c.varint(), c.varint()
        at = int.from_bytes(key, "little"), i
        need(key != NO_KEY and at > before and i < len(group["cursors"]) - 1, "the keys of what is counted")
        need(count and first + count <= group["cursors"][i]["next"], "what is counted was never looked at")
        group["counted"][key, i], before = (first, count), at


def decode_group(c, s):
    name, t = c.text(255, 1), c.varint()
    options, retry = decode_options(c, OPTIONS), c.varint()
    need(t in s["topics"], "a group of no topic")
    ends = s["topics"][t]["ends"]
    group = new_group(name, t, options, retry, [0] * (len(ends) + 1))
    check_options(s, group["options"])
    group["retry_end"], group["dead_end"], group["turns"], position = (c.varint() for _ in range(4))
    group["cursor"], group["source"] = position >> 2, position & 3
    need(group["cursor"] <= len(ends) and group["turns"] <= 1 << 62, "a position, or turns")
    group["rank_lsn"], group["rank"], group["texts_dropped"] = c.varint(), c.v32(), c.varint()
    group["dropped"] = c.varint()
    group["settled"] = SettledDeadLetters.decode(c)
    need(group["settled"].end() <= group["dead_end"], "a dead letter that is not there")
    for cursor, end in zip(group["cursors"], ends + [group["retry_end"]]):
        cursor["next"] = end - c.varint()
        need(cursor["next"] >= 0, "a next below zero")
    i, last = -1, {"lease": None, "turn": None}
    for _ in range(c.count()):
        i += c.varint() + 1
        need(i < len(group["cursors"]), "a cursor that is not there")
        n, at = c.count(3), -1
        need(n, "a cursor without messages")
        for _ in range(n):
            gap, m = decode_message(c, group, last)
            at += gap + 1
            need(at < group["cursors"][i]["next"], "a message at or above next")
            group["cursors"][i]["messages"][at] = m
    decode_counted(c, group)
    texts = texts_of(group)
    group["text_bytes"] = sum(len(f[2].encode()) for f in texts)
    need(len({f[3] for f in texts}) == len(texts) and group["text_bytes"] <= 4 * MIB, "texts of failures")
    parked = count_parked(group)
    need(len(messages_of(group)) - parked <= 1 << 20 and parked <= MOST_PARKED, "outstanding messages")
    check_in_flight(group)
    return group


def decode_state(data):
    c, s = Cursor(data), new_state()
    version = c.u8()
    if version > 1:
        raise Newer(f"a state of version {version}")
    need(version == 1, "a state of version 0")
    for n in ("epoch", "next_topic", "next_group", "next_partition"):
        s[n] = c.varint()
    at = 0
    for _ in range(c.count(6)):
        at += c.varint()
        name, first, count = c.text(255, 1), c.varint(), c.varint()
        options = decode_topic_options(c)
        need(1 <= count <= 65536 and count <= c.left(), "partitions of a topic")
        s["topics"][at] = {"name": name, "first": first, "options": options, "ends": [c.varint() for _ in range(count)]}
        s["topics"][at]["notes"] = c.varint() if options[STREAMS] else 0
        s["topics"][at]["schedule"] = None
        s["topics"][at]["ages"] = new_ages(options, count)
        at += 1
    need(at <= s["next_topic"], "a topic at or above the next")
    at = 0
    for _ in range(c.count(16)):
        at += c.varint()
        s["groups"][at] = decode_group(c, s)
        at += 1
    need(at <= s["next_group"], "a group at or above the next")
    exclusive = c.u8()
    need(exclusive < 4, "exclusive flags")
    if exclusive & 1:
        s["awaited"] = {n: c.varint() for n in ("group", "partition", "offset", "since")}
    if exclusive & 2:
        s["out"] = {n: c.varint() for n in ("group", "partition", "offset", "since", "until")}
    s["jumped"] = c.signed()
    decode_named(c, s)
    decode_ages(c, s)
    decode_keys(c, s)
    c.done()
    check_state(s)
    need(encode_state(s) == bytes(data), "a state that is encoded otherwise")
    return s


def decode_id(c, s, topic):
    e = {"partition": c.varint(), "offset": c.varint(), "id": bytes(c.take(16)), "body": bytes(c.take(8)),
         "epoch": c.varint(), "lsn": c.varint(), "time": c.varint()}
    where = owner(s, e["partition"])
    need(where is not None and where[0] in ("topic", "schedule") and where[1] == topic, "an id of no partition of its topic")
    need(e["offset"] < end_of(s, e["partition"]), "an id of a message that is not there")
    return e


def decode_named(c, s):
    """Named cursors, windows and producers."""
    for _ in range(c.count(4)):
        name, value, hold = decode_name(c), decode_value(c), c.u8()
        need(hold in (0, 1), "whether a named cursor holds a topic")
        s["named"][name] = (value, (c.varint(), c.varint()) if hold else None)
    need(len(s["named"]) <= MOST_NAMED, "named cursors")
    decode_schedules(c, s)
    at = 0
    for _ in range(c.count(2)):
        topic = at + c.varint()
        at = topic + 1
        need(topic in s["topics"], "a window of no topic")
        s["windows"][topic] = [decode_id(c, s, topic) for _ in range(c.count(29))]
        need(len(s["windows"][topic]) <= s["topics"][topic]["options"][DEDUP_IDS], "more ids than a topic remembers")
    need(sum(s["topics"][t]["options"][DEDUP_IDS] for t in s["windows"]) <= MOST_IDS, "more ids than a store remembers")
    at = 0
    for _ in range(c.count(2)):
        topic = at + c.varint()
        at = topic + 1
        need(topic in s["topics"], "producers of no topic")
        n = c.count(3)
        need(n > 0, "a topic without producers")
        s["producers"][topic] = {decode_name(c): c.varint() for _ in range(n)}
    need(sum(map(len, s["producers"].values())) <= MOST_NAMED, "producers")


def decode_schedules(c, s):
    at = 0
    for _ in range(c.count(4)):
        number = at + c.varint()
        at = number + 1
        topic = s["topics"].get(number)
        need(topic is not None, "scheduled for no topic")
        partition, end = c.varint(), c.varint()
        topic["schedule"] = {"partition": partition, "end": end, "entries": {}}
        next_offset = 0
        for _ in range(c.count(5)):
            offset, index = next_offset + c.varint(), c.v32()
            due, _ = decode_due(c, 0)
            epoch = c.varint()
            need(offset < end and index < len(topic["ends"]), "a scheduled message that is not there, or goes nowhere")
            topic["schedule"]["entries"][offset] = (index, due, epoch)
            next_offset = offset + 1
    need(scheduled_count(s) <= MOST_SCHEDULED, "too many scheduled messages")


def check_state(s):
    owned = [(t["first"], t["first"] + partitions_len(len(t["ends"]), t["options"])) for t in s["topics"].values()]
    owned += [(t["schedule"]["partition"], t["schedule"]["partition"] + 1) for t in s["topics"].values() if t["schedule"]]
    owned = sorted(owned + [(g["retry"], g["retry"] + 2) for g in s["groups"].values()])
    need(all(a[1] <= b[0] for a, b in zip(owned, owned[1:])), "a partition with two owners")
    need(not owned or owned[-1][1] <= s["next_partition"], "a partition at or above the next")
    names = [t["name"] for t in s["topics"].values()]
    need(len(set(names)) == len(names), "a topic's name twice")
    names = [(g["topic"], g["name"]) for g in s["groups"].values()]
    need(len(set(names)) == len(names), "a group's name twice")
    if s["awaited"]:
        need(message_class(outstanding(s, s["awaited"])[2]) == EXCLUSIVE, "a message is awaited that is not exclusive")
    if s["out"]:
        m = outstanding(s, s["out"])[2]
        need(m["phase"] == LEASED and m["exclusive"] and m["until"] == s["out"]["until"], "an exclusive lease that is none")


# ---------------------------------------------------------------- messages

def decode_part(data):
    """(key or None, headers, payload) of a message."""
    c = Cursor(data)
    flags, key, headers = c.u8(), None, []
    need(flags < 4, "flags of a message")
    if flags & 1:
        key = bytes(c.take(c.varint()))
    if flags & 2:
        n = c.count(2)
        need(n, "no headers")
        for _ in range(n):
            name = c.text().encode()
            headers.append((name, bytes(c.take(c.varint()))))
    return key, headers, bytes(c.take(c.left()))


def as_a_writer_makes_it(data, f):
    kind = struct.unpack_from("<I", data, f["at"] + 4)[0] >> 30
    return kind == 0 and f["length"] <= 128 if f["control"] else f["epoch"] is None


def frames_below(s, C):
    """Of a file of the list below C, (frame or None, byte, whether a checksum agrees there): None for what was passed over."""
    entry, of_class = s["entry"], s["kind"] != 1
    data, salt = entry["data"], entry["header"]["salt"]
    limit = min(len(data), 128 + (s["body"] if of_class else min(s["end"], C) - s["base"]))
    at, next_lsn, searching = 128, s["base"], False
    while at < limit:
        lsn = None if of_class else s["base"] + at - 128
        f = parse_frame(data, at, limit, salt, lsn, None, False, KIB4 if searching else None)
        if f and of_class and f["has_lsn"] and f["lsn"] >= s["end"]:
            return
        if f and of_class and not (f["has_lsn"] and f["lsn"] >= next_lsn):
            f = None
        if f and searching and not as_a_writer_makes_it(data, f):
            f = None
        if f:
            yield f, at, True
            next_lsn, searching = f["lsn"] + 8, False
            at += f["size"]
        else:
            if not searching:
                yield None, at, parse_front(data, at, limit, salt) is not None
            searching = True
            at += 8


def message_of(data, f, part, r, id):
    """What one message is, or why it cannot be read."""
    if f["length"] > 32 * MIB:
        return {"damaged": "in a frame of more than 32 MiB"}
    if part >= len(f["parts"]):
        return {"damaged": "its part is not there"}
    a, b, good = f["parts"][part]
    if not good:
        return {"damaged": "the check of its part does not agree"}
    try:
        key, headers, payload = decode_part(data[a:b])
    except Bad as e:
        return {"damaged": str(e)}
    copy = r.get("copy")
    origin, time = (copy["id"], copy["first_time"]) if copy else (id, r["time"])
    origin = "-".join(map(str, origin))
    return {"id": "-".join(map(str, id)), "origin": origin, "key": key, "copied": copy is not None,
            "print": fingerprint(origin, time, key, headers, payload)}


def fingerprint(origin, time, key, headers, payload):
    """A CRC over all that a message is made of; the test makes the same of what the library delivers."""
    out = origin.encode() + struct.pack("<Q", time) + (b"-" if key is None else b"k" + struct.pack("<I", len(key)) + key)
    for name, value in headers:
        out += b"h" + struct.pack("<II", len(name), len(value)) + name + value
    return f"{crc(0, out + b'p' + payload):08x}"


def collect(state, data, f, epoch, classes, messages, ends):
    """Adds the messages of one frame, up to a record that claims what cannot be.

    False where there is one, or one cannot be decoded.
    """
    records, error = decode_records(f["head"])
    if error:
        return False
    part = 0
    for r in records:
        claimed = claim(r)
        if not claimed:
            continue
        partition, first, count = claimed
        if partition >= state["next_partition"]:
            return False
        where = owner(state, partition)
        if classes & class_of(state, partition):
            if first < ends.get(partition, 0):
                return False
            ends[partition] = first + count
            number, index = public_place(state, where)
            for i in range(min(count, max(len(f["parts"]) - part, 0))):
                m = message_of(data, f, part + i, r, (number, index, first + i, epoch))
                messages.setdefault(partition, {})[first + i] = m
        part += count
    return True


def public_place(s, where):
    """The number of the topic, and the index of a partition within it."""
    what, n, i = where
    if what == "topic":
        return n, i
    if what == "notes":
        return n, M64
    if what == "schedule":
        return n, M64 - 1
    topic = s["groups"][n]["topic"]
    return topic, len(s["topics"][topic]["ends"]) + 2 * n + (what == "dead")


def epoch_at(epochs, lsn):
    return max([e for at, e in epochs if at <= lsn], default=epochs[0][1])


def read_messages(state, listed, log, C):
    """Of what serves each class the messages by partition and offset, and the places that were passed over.

    The offsets of a partition rise over all files. A frame whose checksum agrees and in which they do not, that is not valid for
    another reason, or that cannot be decoded is one that no writer makes. Then the page leaves open which messages are read: the
    third result says so.
    """
    messages, ends, passed_over, is_open = {}, {}, [], False
    for s in sorted(listed, key=lambda s: s["base"]):
        for f, at, agrees in frames_below(s, C):
            if f and f["control"]:
                continue
            data, classes = s["entry"]["data"], s["classes"]
            if f and collect(state, data, f, epoch_at(s["epochs"], f["lsn"]), classes, messages, ends):
                continue
            passed_over.append([s["name"], at])
            is_open = is_open or agrees
    serving = {s["number"]: s["classes"] for s in listed if s["kind"] == 1}
    for i in log["frames"]:
        c, f = i["c"], i["f"]
        if not f["control"]:
            classes = serving.get(c["number"], MESSAGES | DEAD)
            read = collect(state, c["entry"]["data"], f, epoch_at(c["epochs"], i["lsn"]), classes, messages, ends)
            is_open = is_open or not read
    return messages, passed_over, is_open


# ---------------------------------------------------------------- index files

def read_index(data, uuid, entry, ends):
    """The rows of an index file by partition, or Bad where it is of no use."""
    need(len(data) >= 80 and data[:8] == MAGIC_INDEX, "magic or length")
    need(struct.unpack_from("<I", data, 76)[0] == crc(0, data[:76]), "CRC")
    number, count = struct.unpack_from("<2I", data, 8)
    need(number == 2 and data[16:32] == uuid, "format or uuid")
    segment, segment_salt, salt, base, stop, directory = struct.unpack_from("<5QI", data, 32)
    need((segment, segment_salt) == (entry["number"], entry["header"]["salt"]), "another segment")
    need((base, stop) == ends, "another base or end")
    rows_at, result, row, before = 80 + 44 * count, {}, 0, -1
    need(rows_at <= len(data) and crc(0, data[80:rows_at]) == directory, "directory")
    for i in range(count):
        partition, first, end, _, first_row, rows = struct.unpack_from("<5QI", data, 80 + 44 * i)
        need(partition > before and rows and first_row == row, "an entry of the directory")
        before, at, got = partition, first, []
        need(rows_at + 24 * (row + rows) <= len(data), "rows")
        for n in range(row, row + rows):
            difference, many, byte, part, check = struct.unpack_from("<Q4I", data, rows_at + 24 * n)
            want = step(step(place(salt, n) ^ partition) ^ difference)
            want = step(step(want ^ byte ^ part << 32) ^ many)
            need(low(want) == check, "the check of a row")
            need(many and first + difference >= at and (got or difference == 0), "rows that do not rise, or overlap")
            at = first + difference + many
            got.append((first + difference, many, byte, part))
        need(at == end, "the end offset")
        result[partition] = got
        row += rows
    return result


def useless_indexes(state, found, uuid, listed, log):
    """Index files that are of no use, or whose rows lead to no such message, with the reason."""
    files, useless = {}, {}
    for s in listed:
        files[s["number"]] = [s["entry"], s["base"], s["end"], s["classes"]]
    for i in log["frames"]:
        base = files.get(i["c"]["number"], [0, i["c"]["base"]])[1]
        files[i["c"]["number"]] = [i["c"]["entry"], base, i["end"], MESSAGES | DEAD]
    for number, x in sorted(found["idx"].items()):
        try:
            need(number in files, "no file of the log")
            entry, base, end, classes = files[number]
            data, salt = entry["data"], entry["header"]["salt"]
            for partition, rows in read_index(x["data"], uuid, entry, (base, end)).items():
                if not classes & class_of(state, partition):
                    continue
                for first, many, byte, part in rows:
                    lsn = None if entry["header"]["kind"] != 1 else base + byte - 128
                    f = parse_frame(data, byte, len(data), salt, lsn)
                    need(f is not None, "a row that leads to no frame")
                    claims, at = {}, 0
                    for r in decode_records(f["head"])[0]:
                        if claim(r):
                            claims[at] = claim(r)
                            at += claim(r)[2]
                    need(claims.get(part) == (partition, first, many), "a row that leads to another message")
        except Bad as e:
            useless[x["name"]] = str(e)
    return useless


# ---------------------------------------------------------------- all together

def read_files(files, older=False):
    """What a store of these files (bytes by name) contains; StoreError where it does not open.

    `older`: also the state as replayed from the checkpoint before the newest one up to what the newest one covers.
    """
    store = read_store(files)
    if store is None:
        return {"verdict": "laid out"}
    uuid, slots = store
    found, ignored = read_headers(files, uuid)
    if not slots:
        raise StoreError("Corrupt", "STORE", what="both slots are not valid")
    slot = max(slots, key=lambda s: s["sequence"])
    check_headers(found["seg"], slot)
    checkpoint, (C, listed, retired, log_epochs, body) = choose_checkpoint(found["ckp"], slot["newest_checkpoint"])
    log = find_log(found, slot, slots, C, listed, retired, log_epochs)
    state = state_of(checkpoint, body)
    replay(state, log["frames"])
    if state["epoch"] >> 32 > log["highest"] >> 32:
        raise StoreError("Corrupt", checkpoint or "STORE", what="an epoch above all others")
    messages, passed_over, is_open = read_messages(state, listed, log, C)
    result = {"verdict": "opens", "end": log["end"], "watermark": log["W"], "checkpoint": C, "clean": log["clean"],
              "dropped": log["dropped"], "ignored": len(ignored), "passed over": passed_over,
              "left open": is_open,
              "state": state_hash(encode_state(state)), "topics": topics(state, messages),
              "groups": groups(state, messages), "useless": useless_indexes(state, found, uuid, listed, log)}
    if older:
        result["older"] = replay_from_older(found, slot, slots)
    return result


def state_of(checkpoint, body):
    if body is None:
        return new_state()
    try:
        return decode_state(body)
    except Newer as e:
        raise StoreError("NewerFormat", checkpoint, what=str(e)) from e
    except Bad as e:
        raise StoreError("Corrupt", checkpoint, what=str(e)) from e


def state_hash(data):
    """What the library's report calls `state_hash`: no part of the format."""
    h, whole = len(data), len(data) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        h = finish(h ^ word)
    for byte in data[whole:]:
        h = finish(h ^ byte)
    return f"{h:016x}"


def replay_from_older(found, slot, slots):
    """The name of the newest whole checkpoint and, as hex, the state that an older one and the log give; None without two."""
    whole = [n for n in sorted(found["ckp"]) if n <= slot["newest_checkpoint"] and whole_checkpoint(found["ckp"][n])]
    if len(whole) < 2:
        return None
    name, newest = choose_checkpoint(found["ckp"], whole[-1])
    older, (C, listed, retired, log_epochs, body) = choose_checkpoint(found["ckp"], whole[-2])
    log = find_log(found, slot, slots, C, listed, retired, log_epochs)
    state = state_of(older, body)
    replay(state, [i for i in log["frames"] if i["end"] <= newest[0]])
    return [name, encode_state(state).hex()]


def delivered(s, partition, messages):
    """The messages of a partition by offset, but for those that were replaced, which nobody gets."""
    replaced = {offset for (of, offset), k in s["keys"].items() if of == partition and k["replaced"]}
    return {o: m for o, m in messages.get(partition, {}).items() if o not in replaced}


def topics(s, messages):
    """Of each topic its partitions: the end, and the messages that can be read by offset, as [id, print]."""
    result = {}
    for t in s["topics"].values():
        partitions = []
        for i, end in enumerate(t["ends"]):
            there = delivered(s, t["first"] + i, messages)
            readable = {o: [m["id"], m["print"]] for o, m in sorted(there.items()) if "damaged" not in m and o < end}
            elsewhere = [o for o in readable if there[o]["key"] is not None and not there[o]["copied"]
                         and key_hash(there[o]["key"]) % len(t["ends"]) != i]
            partitions.append({"end": end, "messages": readable, "keyed elsewhere": elsewhere})
        result[t["name"]] = partitions
    return result


def is_counted(counted, offset, m):
    """Whether a message is one of those that are only counted: by key the first offset of them."""
    if "damaged" in m or m["key"] is None:
        return False
    key = min(max(key_hash(m["key"]), 1), M64 - 1).to_bytes(8, "little")
    return key in counted and offset >= counted[key]


def groups(s, messages):
    """Of each group what it has still to settle, its dead letters with it: [origin, print] of each that can be read, and how many
    there are."""
    result = {}
    for g in s["groups"].values():
        topic, items, count = s["topics"][g["topic"]], [], 0
        for partition, cursor, end in zip(partitions_of(s, g), g["cursors"], topic["ends"] + [g["retry_end"]]):
            i = g["cursors"].index(cursor)
            counted = {key: first for (key, j), (first, _) in g["counted"].items() if j == i}
            count += len(cursor["messages"]) + end - cursor["next"] + sum(n for (_, j), (_, n) in g["counted"].items() if j == i)
            items += [m for o, m in delivered(s, partition, messages).items()
                      if o < end and (o in cursor["messages"] or o >= cursor["next"] or is_counted(counted, o, m))]
        count += g["dead_end"] - g["settled"].count()
        dead = messages.get(g["retry"] + 1, {})
        items += [m for o, m in dead.items() if o < g["dead_end"] and o not in g["settled"]]
        readable = sorted([m["origin"], m["print"]] for m in items if "damaged" not in m)
        result[f"{topic['name']}/{g['name']}"] = {"count": count, "items": readable}
    return result


def judge(files, older=False):
    try:
        return read_files(files, older)
    except StoreError as e:
        return {"verdict": e.name, "file": e.file, "byte": e.byte, "lsns": e.lsns, "what": e.what}


def change_file(data, change):
    """The file that a change makes of `data`: [length, byte, hex of what stands there]; the rest is as before, or zeros."""
    length, at, content = change
    data = bytearray(data[:length])
    data += bytes(length - len(data))
    content = bytes.fromhex(content)
    data[at:at + len(content)] = content
    return bytes(data)


def batch(lines):
    """Judges one store a line: {"name", "base": name or null, "keep": bool, "older": bool, "files": {name: change or null}}.

    A store has the files of its base with these changed, or removed where the change is null. `keep`: it is the base of others.
    """
    bases = {None: {}}
    for line in lines:
        case = json.loads(line)
        files = dict(bases[case["base"]])
        for name, change in case["files"].items():
            if change is None:
                files.pop(name, None)
            else:
                files[name] = change_file(files.get(name, b""), change)
        if case["keep"]:
            bases[case["name"]] = files
        yield {"name": case["name"], **judge(files, case["older"])}


def main(argv):
    if len(argv) == 2 and argv[0] == "--batch":
        with open(argv[1], encoding="utf-8") as lines:
            for result in batch(lines):
                print(json.dumps(result))
        return 0
    if len(argv) != 1:
        sys.exit(__doc__)
    files = {}
    for name in os.listdir(argv[0]):
        path = os.path.join(argv[0], name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                files[name] = file.read()
        else:
            files[name] = b""
    result = judge(files)
    print(json.dumps(result, indent=1))
    return 0 if result["verdict"] in ("opens", "laid out") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
