"""What is to be reached, as ratios within one run, and whether it was."""

from dataclasses import dataclass

from measure import Case

OURS = "llmspell_state"
EMBEDDED = (
    "lmdb + orjson",
    "rocksdict + orjson",
    "sqlite3 + orjson",
    "apsw + orjson",
    "diskcache",
    "sqlitedict",
    "LangGraph SqliteStore",
)
EXACT = ("sqlite3 + orjson", "apsw + orjson", "diskcache")


@dataclass
class Target:
    """`ours` compared with the best of `peers` in a case whose name begins with `case`."""

    case: str
    peers: tuple[str, ...]
    ratio: float  # at most; at least, where the unit is per second
    ours: str = OURS


LMDB, SQLITE, DISKCACHE, LOADS, FLOOR, CJSON, LUASQL = (
    ("lmdb + orjson",),
    ("sqlite3 + orjson",),
    ("diskcache",),
    ("orjson.loads alone",),
    ("dict + orjson",),
    ("cjson.decode alone",),
    ("lua-sql + lua-cjson",),
)

TARGETS = [
    Target("get, one hot key, small", LMDB, 0.12),
    Target("get, one hot key, small", DISKCACHE, 0.02),
    Target("get, one hot key, small", FLOOR, 1.0),
    Target("get, one hot key, 1 KB", LOADS, 0.7),
    Target("get, one hot key, 1 KB", LMDB, 0.35),
    Target("get, one hot key, 10 KB", LOADS, 0.4),
    Target("get, one hot key, 10 KB", LMDB, 0.35),
    *(Target(f"first get of a cached value, {size}", LOADS, 1.5) for size in ("small", "1 KB", "10 KB")),
    Target("get, random of", LMDB, 0.35),
    Target("get, not cached, small", SQLITE, 0.6),
    Target("get, not cached, 10 KB", SQLITE, 1.0),
    Target("set, NORMAL, small", SQLITE, 1.3),
    Target("set, NORMAL, small", DISKCACHE, 0.3),
    Target("set, NORMAL, 1 KB", SQLITE, 1.0),
    Target("set, NORMAL, 1 KB", DISKCACHE, 0.3),
    Target("set, FULL, small", EMBEDDED, 1.0),
    Target("set, FULL, 1 KB", EMBEDDED, 1.0),
    Target("set with history", (f"{OURS}, no history",), 1.3),
    Target("set with history", (f"{OURS}, no history",), 1.3, f"{OURS}, all versions"),
    Target("set_many of 10,000, small", SQLITE, 1.0),
    Target("set_many of 10,000, small", DISKCACHE, 0.1),
    Target("set_many of 10,000, 1 KB", SQLITE, 0.6),
    Target("set_many of 10,000, 1 KB", DISKCACHE, 0.3),
    Target("8 threads setting, FULL", (*EMBEDDED, "redis + orjson"), 2.0),
    Target("8 threads setting, FULL", (f"{OURS}, 1 thread",), 3.0),
    *(Target(f"64 asyncio tasks setting, {sync}", (*EMBEDDED, "redis + orjson"), 3.0) for sync in ("NORMAL", "FULL")),
    *(Target(f"{lua} 1,000 sets, FULL", ("one by one",), 5.0, "tasks") for lua in ("lua5.4", "luajit")),
    Target("keys by prefix", SQLITE, 0.5),
    *(
        Target(f"counter, 4 {who}, {sync}", EXACT, 1.0)
        for who in ("threads", "processes")
        for sync in ("FULL", "NORMAL")
    ),
    Target("disk, small", SQLITE, 1.3, f"{OURS}, no compression"),
    Target("disk, 1 KB", SQLITE, 1.3, f"{OURS}, no compression"),
    Target("disk, 1 KB", SQLITE, 0.7),
    Target("disk, conversation of", ("LangGraph SqliteSaver",), 0.05),
    *(Target(f"{lua} get, one hot key, small", CJSON, 0.8) for lua in ("lua5.4", "luajit")),
    *(Target(f"{lua} get, one hot key, 10 KB", CJSON, 0.4) for lua in ("lua5.4", "luajit")),
    *(
        Target(f"{lua} get, one hot key, {size}", LUASQL, 0.1)
        for lua in ("lua5.4", "luajit")
        for size in ("small", "10 KB")
    ),
]
OPEN_MS = 5.0
AWAIT_US = 3.0
LATE_MS = 5.0
BARE = "bare futures"
ONE_TURN = ("sets at once", "1,000 tasks setting")
GROWTH_GET, GROWTH_SET = 1.3, 2.0


@dataclass
class Verdict:
    """One line of the summary."""

    work: str
    target: str
    found: str
    is_met: bool


def judge(target: Target, case: Case) -> Verdict | None:
    """Whether a target was met; nothing when no peer of it was there."""
    peers = {name: case.medians[name] for name in target.peers if name in case.medians}
    if not peers or target.ours not in case.medians:
        return None
    more_is_better = case.unit == "/s"
    best = (max if more_is_better else min)(peers, key=lambda name: peers[name])
    ratio = case.medians[target.ours] / peers[best]
    met = ratio >= target.ratio if more_is_better else ratio <= target.ratio
    bound = "at least" if more_is_better else "at most"
    of = best if len(target.peers) == 1 else f"the best peer, {best}"
    how = "" if target.ours == OURS else f" ({target.ours.removeprefix(f'{OURS}, ')})"
    return Verdict(case.name + how, f"{bound} {target.ratio:g} × {of}", f"{ratio:.3g} ×", met)


def judge_bounds(cases: list[Case]) -> list[Verdict]:
    """The targets that are no ratios."""
    bounds = {"await get": (AWAIT_US, "µs"), "lateness": (LATE_MS, "ms")}
    verdicts = []
    for case in cases:
        for beginning, (bound, unit) in bounds.items():
            if not case.name.startswith(beginning):
                continue
            # A turn in which a thousand tasks begin is longer than that whatever they call.
            is_one_turn = case.name.endswith(ONE_TURN)
            beyond = case.medians[BARE] if is_one_turn else 0.0
            target = f"at most {bound:g} {unit}" + (f" later than {BARE}" if is_one_turn else "")
            verdicts += [
                Verdict(f"{case.name}, {name}", target, f"{found - beyond:.3g} {unit}", found - beyond <= bound)
                for name, found in case.medians.items()
                if name.startswith(OURS)
            ]
    return verdicts


def judge_size(cases: list[Case]) -> list[Verdict]:
    """The targets on what must not depend on a store's size."""
    verdicts = []
    for case in cases:
        if case.name.startswith("open a store"):
            label, found = list(case.medians.items())[-1]
            verdicts.append(
                Verdict(f"{case.name}, {label}", f"under {OPEN_MS:g} ms", f"{found:.3g} ms", found < OPEN_MS)
            )
        if case.name.startswith("growth"):
            (small, before), (large, after) = case.medians.items()
            bound = GROWTH_GET if "get" in case.name else GROWTH_SET
            target = f"at {large} at most {bound:g} × that at {small}"
            verdicts.append(Verdict(case.name, target, f"{after / before:.3g} ×", after <= bound * before))
    return verdicts


def verdicts(cases: list[Case]) -> list[Verdict]:
    """Every target for which there is a case."""
    judged = [judge(target, case) for target in TARGETS for case in cases if case.name.startswith(target.case)]
    return [verdict for verdict in judged if verdict] + judge_bounds(cases) + judge_size(cases)
