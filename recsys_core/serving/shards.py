"""Scores of one run as Parquet shards: each whole or absent, the run seen only when all are there.

    scores/3f2a…-20171016T235959.000000Z/
        part-00000.parquet    SCORES rows, ordered by (user_id, rank), across shards too
        shards.json           what the run is, and each whole shard with its SHA-256
    scores/current.json       the run that is whole, for publishing

A run that stops is taken up again where it stopped. `facts` say what a run depends on; with other
facts its shards are worthless and are removed.
"""

import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys_core.artifacts import read_json, sha256, write_json
from recsys_core.columns import RANK, USER_ID
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError
from recsys_core.tables import SCORES, write_table

if TYPE_CHECKING:
    # who only reads a table must not load ONNX Runtime
    from recsys_core.serving.engine import TopItems

KEY = (USER_ID, RANK)
RESERVED = "cold/"
"""How the user_id of a list begins that is for no user: of a segment, or of everybody."""
LIST = "shards.json"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RunFacts:
    """What the scores of a run depend on.

    `log` is a digest of the events and users scored, `code` one of the code that scores, `filters`
    one of who gets rows and what may be in them; `provider` is where ONNX Runtime runs, since
    another one rounds differently.
    """

    model_version: str
    graph: str
    as_of: int
    k: int
    seen_filter: bool
    shard_users: int
    users: int
    log: str
    code: str
    provider: str
    filters: str = ""

    @property
    def name(self) -> str:
        """The run's folder.

        >>> RunFacts("3f2a", "popularity", 1_508_198_399_000_000, 10, False, 4, 9, "", "", "").name
        '3f2a-20171016T235959.000000Z'
        """
        return f"{self.model_version}-{time_of(self.as_of):%Y%m%dT%H%M%S.%fZ}"

    @property
    def n_shards(self) -> int:
        return -(-self.users // self.shard_users)


@dataclass(frozen=True)
class Shard:
    """A whole shard; `shortfall` counts recommendations that were asked for and not there."""

    name: str
    users: int
    rows: int
    shortfall: int
    sha256: str


@dataclass(frozen=True)
class ScoreRun:
    """A run with all its shards, in order."""

    folder: Path
    facts: RunFacts
    shards: tuple[Shard, ...]

    @property
    def parts(self) -> list[Path]:
        return [self.folder / shard.name for shard in self.shards]

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def shortfall(self) -> int:
        return sum(shard.shortfall for shard in self.shards)


def time_of(microseconds: int) -> datetime:
    """A time in UTC from microseconds since 1970, exactly."""
    return EPOCH + timedelta(microseconds=microseconds)


def recommendation_rows(
    top: "TopItems", *, user_ids: pa.Array, items: Vocabulary
) -> tuple[pa.Table, int]:
    """Rows of SCORES, and how many of the N * k are missing since nothing was left to recommend.

    `user_ids` (N,) belong to the rows of `top`, and are sorted so that the table is.
    """
    users, places = (top.scores > float("-inf")).nonzero()  # (R,)
    table = pa.table(
        [
            user_ids.take(pa.array(users)),
            pa.array(places + 1, pa.int32()),
            items.to_ids(top.items[users, places]),
            pa.array(top.scores[users, places], pa.float32()),
            # NaN is nobody's rating: null
            pa.array(top.ratings[users, places], pa.float32(), from_pandas=True),
        ],
        schema=SCORES,
    )
    return table, top.items.size - len(users)


class RunFolder:
    """The folder of a run being scored; opening it keeps whole shards and removes other runs."""

    def __init__(self, root: Path, facts: RunFacts) -> None:
        self.facts = facts
        self._root = root
        self.folder = root / facts.name
        self._shards = self._whole_shards()
        keep = {shard.name for shard in self._shards.values()}
        root.mkdir(parents=True, exist_ok=True)
        for entry in root.iterdir():
            if entry.is_dir() and entry != self.folder:
                shutil.rmtree(entry)
        self.folder.mkdir(exist_ok=True)
        for file in self.folder.iterdir():
            if file.name not in keep and file.name != LIST:
                file.unlink()
        # last, and never absent meanwhile: a run stopped before its next shard loses none
        self._write_list()

    def missing(self) -> list[int]:
        """Numbers of the shards that are still to be scored."""
        return [number for number in range(self.facts.n_shards) if number not in self._shards]

    def write(self, number: int, table: pa.Table, *, users: int, shortfall: int) -> None:
        """Write shard `number`; from then on it counts as whole."""
        path = self.folder / f"part-{number:05d}.parquet"
        write_table(path, table, SCORES, key=KEY)
        self._shards[number] = Shard(
            name=path.name,
            users=users,
            rows=table.num_rows,
            shortfall=shortfall,
            sha256=sha256(path),
        )
        self._write_list()

    def finish(self) -> ScoreRun:
        """Make the run, now whole, the one that publishing takes."""
        assert not self.missing(), f"shards {self.missing()} are not scored yet"
        write_json(self._root / "current.json", {"run": self.facts.name})
        return ScoreRun(
            folder=self.folder,
            facts=self.facts,
            shards=tuple(self._shards[number] for number in sorted(self._shards)),
        )

    def _write_list(self) -> None:
        shards = {str(number): asdict(shard) for number, shard in self._shards.items()}
        write_json(self.folder / LIST, {"facts": asdict(self.facts), "shards": shards})

    def _whole_shards(self) -> dict[int, Shard]:
        """Shards of an earlier try that are still what they were; none where the facts differ."""
        path = self.folder / LIST
        if not path.exists():
            return {}
        listed = read_json(path)
        if listed["facts"] != asdict(self.facts):
            return {}
        shards = {int(number): Shard(**shard) for number, shard in listed["shards"].items()}
        return {number: shard for number, shard in shards.items() if _is_whole(self.folder, shard)}


def read_score_run(root: Path) -> ScoreRun:
    """The run that is whole and waits to be published, its files compared with their SHA-256.

    Raises `ContractError` where there is none, or a shard is missing or changed.
    """
    name = read_json(root / "current.json")["run"]
    folder = root / name
    listed = read_json(folder / LIST)
    facts = RunFacts(**listed["facts"])
    shards = {int(number): Shard(**shard) for number, shard in listed["shards"].items()}
    broken = [
        number
        for number in range(facts.n_shards)
        if number not in shards or not _is_whole(folder, shards[number])
    ]
    if broken:
        raise ContractError(
            f"{folder}: shards {broken} are missing or changed; run the score edge again"
        )
    return ScoreRun(
        folder=folder,
        facts=facts,
        shards=tuple(shards[number] for number in range(facts.n_shards)),
    )


def _is_whole(folder: Path, shard: Shard) -> bool:
    path = folder / shard.name
    return path.exists() and sha256(path) == shard.sha256
