"""Ours and its peers behind one small interface. Each method is what a user of that library would write.

`sync` is "FULL" (on disk when acknowledged) or "NORMAL" (survives a crash of the process).
"""

import importlib.util
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

Pairs = Iterable[tuple[str, Any]]
dumps, loads = orjson.dumps, orjson.loads


class Contender:
    """A key-value store under measurement. `get` and `set` are what the loops call."""

    name: str
    module: str | None = None  # what must be importable
    get: Callable[[str], Any]
    set: Callable[[str, Any], Any]

    def __init__(self, folder: Path, sync: str) -> None:
        raise NotImplementedError

    @classmethod
    def is_available(cls) -> bool:
        """Whether it is installed here."""
        return cls.module is None or importlib.util.find_spec(cls.module) is not None

    def set_many(self, pairs: Pairs) -> None:
        """All in one commit where the library can."""
        raise NotImplementedError

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        raise NotImplementedError

    def increment(self, key: str) -> None:
        """Adds one, exactly, whoever else does; not every contender can."""
        raise NotImplementedError

    def counted(self, key: str) -> Any:
        """What `increment` came to."""
        return self.get(key)

    def close(self) -> None:
        """Lets go of the files."""


class Ours(Contender):
    """This library."""

    name = "llmspell_state"

    def __init__(self, folder: Path, sync: str, **settings: Any) -> None:
        from llmspell_state import State

        self.state = State(folder / "ours.db", sync_mode=sync, **settings)
        self.get, self.set = self.state.get, self.state.set
        self.increment = self.state.increment

    def set_many(self, pairs: Pairs) -> None:
        self.state.set_many(dict(pairs))

    def keys(self, prefix: str) -> list[str]:
        return list(self.state.keys(f"{prefix}*"))

    def close(self) -> None:
        self.state.close()


class Dict(Contender):
    """The floor: no file at all, but every reader gets a value of its own."""

    name = "dict + orjson"

    def __init__(self, folder: Path, sync: str) -> None:
        texts: dict[str, bytes] = {}
        self.texts = texts
        self.get = lambda key: loads(texts[key])

        def set_(key: str, value: Any) -> None:
            texts[key] = dumps(value)

        self.set = set_

    def set_many(self, pairs: Pairs) -> None:
        self.texts.update((key, dumps(value)) for key, value in pairs)


class Lmdb(Contender):
    """lmdb; without sync for NORMAL, which it survives a crash of the process with."""

    name = "lmdb + orjson"
    module = "lmdb"

    def __init__(self, folder: Path, sync: str) -> None:
        import lmdb

        full = sync == "FULL"
        env = self.env = lmdb.open(str(folder / "lmdb"), map_size=8 << 30, sync=full, metasync=full)

        def get(key: str) -> Any:
            with env.begin(buffers=True) as tx:
                return loads(tx.get(key.encode()))

        def set_(key: str, value: Any) -> None:
            with env.begin(write=True) as tx:
                tx.put(key.encode(), dumps(value))

        self.get, self.set = get, set_

    def set_many(self, pairs: Pairs) -> None:
        with self.env.begin(write=True) as tx:
            for key, value in pairs:
                tx.put(key.encode(), dumps(value))

    def keys(self, prefix: str) -> list[str]:
        wanted, found = prefix.encode(), []
        with self.env.begin() as tx:
            cursor = tx.cursor()
            cursor.set_range(wanted)
            for key in cursor.iternext(keys=True, values=False):
                if not key.startswith(wanted):
                    break
                found.append(key.decode())
        return found

    def close(self) -> None:
        self.env.close()


class Rocks(Contender):
    """RocksDB through rocksdict, with its write-ahead log."""

    name = "rocksdict + orjson"
    module = "rocksdict"

    def __init__(self, folder: Path, sync: str) -> None:
        from rocksdict import Options, Rdict, WriteOptions

        db = self.db = Rdict(str(folder / "rocks"), Options(raw_mode=True))
        options = WriteOptions()
        options.sync = sync == "FULL"
        db.set_write_options(options)
        self.get = lambda key: loads(db[key.encode()])

        def set_(key: str, value: Any) -> None:
            db[key.encode()] = dumps(value)

        self.set = set_

    def set_many(self, pairs: Pairs) -> None:
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        for key, value in pairs:
            batch.put(key.encode(), dumps(value))
        self.db.write(batch)

    def keys(self, prefix: str) -> list[str]:
        wanted, found = prefix.encode(), []
        for key in self.db.keys(from_key=wanted):
            if not key.startswith(wanted):
                break
            found.append(key.decode())
        return found

    def close(self) -> None:
        self.db.close()


SCHEMA = "CREATE TABLE IF NOT EXISTS kv (key TEXT NOT NULL UNIQUE, value NOT NULL)"
GET = "SELECT value FROM kv WHERE key = ?"
SET = "INSERT INTO kv (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
ADD = "INSERT INTO kv (key, value) VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"
KEYS = "SELECT key FROM kv WHERE key >= ? AND key < ? ORDER BY key"


class Sqlite(Contender):
    """The standard library's sqlite3: an upsert into a rowid table, the same pragmas, a connection per thread."""

    name = "sqlite3 + orjson"

    def __init__(self, folder: Path, sync: str) -> None:
        path = str(folder / "plain.db")
        local = self.local = threading.local()

        def connection() -> Any:
            try:
                return local.db
            except AttributeError:
                local.db = self.connect(path)
                local.db.execute("PRAGMA journal_mode = WAL")
                local.db.execute(f"PRAGMA synchronous = {sync}")
                local.db.execute(SCHEMA)
                return local.db

        self.connection = connection
        connection()
        self.get = lambda key: loads(connection().execute(GET, (key,)).fetchone()[0])

        def set_(key: str, value: Any) -> None:
            connection().execute(SET, (key, dumps(value)))

        self.set = set_

    @staticmethod
    def connect(path: str) -> Any:
        """A connection that commits every statement by itself."""
        return sqlite3.connect(path, timeout=60, isolation_level=None)

    def set_many(self, pairs: Pairs) -> None:
        db = self.connection()
        db.execute("BEGIN IMMEDIATE")
        db.executemany(SET, ((key, dumps(value)) for key, value in pairs))
        db.execute("COMMIT")

    def keys(self, prefix: str) -> list[str]:
        return [key for (key,) in self.connection().execute(KEYS, (prefix, prefix + "\U0010ffff"))]

    def increment(self, key: str) -> None:
        self.connection().execute(ADD, (key,))

    def counted(self, key: str) -> Any:
        return self.connection().execute(GET, (key,)).fetchone()[0]

    def close(self) -> None:
        self.connection().close()


class Apsw(Sqlite):
    """apsw with the same statements."""

    name = "apsw + orjson"
    module = "apsw"

    @staticmethod
    def connect(path: str) -> Any:
        import apsw

        db = apsw.Connection(path)
        db.set_busy_timeout(60_000)
        return db


class Diskcache(Contender):
    """diskcache as it comes, but for the sync mode and for never throwing anything out."""

    name = "diskcache"
    module = "diskcache"

    def __init__(self, folder: Path, sync: str) -> None:
        import diskcache

        mode = 2 if sync == "FULL" else 1
        self.cache = diskcache.Cache(str(folder / "diskcache"), sqlite_synchronous=mode, eviction_policy="none")
        self.get, self.set = self.cache.get, self.cache.set

    def set_many(self, pairs: Pairs) -> None:
        with self.cache.transact():
            for key, value in pairs:
                self.cache.set(key, value)

    def increment(self, key: str) -> None:
        self.cache.incr(key, retry=True)

    def close(self) -> None:
        self.cache.close()


class Sqlitedict(Contender):
    """sqlitedict with the write-ahead log, committing each set: its own autocommit does not wait for the commit."""

    name = "sqlitedict"
    module = "sqlitedict"

    def __init__(self, folder: Path, sync: str) -> None:
        from sqlitedict import SqliteDict

        db = self.db = SqliteDict(str(folder / "sqlitedict.db"), journal_mode="WAL")
        db.conn.execute(f"PRAGMA synchronous = {sync}")

        def set_(key: str, value: Any) -> None:
            db[key] = value
            db.commit()

        self.get, self.set = db.__getitem__, set_

    def set_many(self, pairs: Pairs) -> None:
        self.db.update(pairs)
        self.db.commit()

    def close(self) -> None:
        self.db.close()


class LangGraph(Contender):
    """LangGraph's SqliteStore."""

    name = "LangGraph SqliteStore"
    module = "langgraph.store.sqlite"

    @classmethod
    def is_available(cls) -> bool:
        try:
            return super().is_available()
        except ModuleNotFoundError:  # not even the package above it
            return False

    def __init__(self, folder: Path, sync: str) -> None:
        from langgraph.store.base import PutOp
        from langgraph.store.sqlite import SqliteStore

        path = str(folder / "langgraph.db")
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA synchronous = {sync}")
        store = self.store = SqliteStore(self.db)
        store.setup()
        self.put = PutOp
        self.get = lambda key: store.get(("bench",), key).value
        self.set = lambda key, value: store.put(("bench",), key, value)

    def set_many(self, pairs: Pairs) -> None:
        batch = list(pairs)
        for at in range(0, len(batch), 1000):  # more are too many variables for one of its statements
            self.store.batch([self.put(("bench",), key, value) for key, value in batch[at : at + 1000]])

    def close(self) -> None:
        self.db.close()


class Redis(Contender):
    """A redis server of its own on a local socket, append-only file on."""

    name = "redis + orjson"
    module = "redis"

    @classmethod
    def is_available(cls) -> bool:
        return super().is_available() and shutil.which("redis-server") is not None

    def __init__(self, folder: Path, sync: str) -> None:
        import redis

        socket = folder / "redis.sock"
        settings = {
            "port": "0",
            "unixsocket": str(socket),
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always" if sync == "FULL" else "everysec",
        }
        command = ["redis-server"]
        for name, value in settings.items():
            command += [f"--{name}", value]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        db = self.db = redis.Redis(unix_socket_path=str(socket))
        for _ in range(200):
            if socket.exists():
                break
            time.sleep(0.02)
        self.get = lambda key: loads(db.get(key))
        self.set = lambda key, value: db.set(key, dumps(value))

    def set_many(self, pairs: Pairs) -> None:
        pipe = self.db.pipeline(transaction=True)
        for key, value in pairs:
            pipe.set(key, dumps(value))
        pipe.execute()

    def close(self) -> None:
        self.db.close()
        self.server.terminate()
        self.server.wait()


PEERS = [Lmdb, Rocks, Sqlite, Apsw, Diskcache, Sqlitedict, LangGraph, Redis]
