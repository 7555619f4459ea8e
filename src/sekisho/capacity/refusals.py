"""What a refusal of the one decision is called when a person reads it."""

from __future__ import annotations

from collections.abc import Mapping

from sekisho.capacity.faults import KeyReused, NameUnknown, NotFree, OverLimit, ReserveFault
from sekisho.capacity.model import Pool, Refused


def fault_of(refused: Refused, pools: Mapping[int, Pool]) -> ReserveFault:
    """With its code and the next step."""
    name = pools[refused.pool].id if refused.pool in pools else str(refused.pool)
    match refused.reason:
        case "key":
            return key_reused()
        case "unknown":
            return NameUnknown(
                f"the pool {name} is gone",
                hint="ask `sekisho reserve find` again",
                fact_ja=f"プール {name} はなくなりました",
                hint_ja="`sekisho reserve find` でもう一度調べてください",
            )
        case "limit":
            return OverLimit(
                f"the tenant may hold {refused.free} more GPUs of {name} in this window",
                hint="ask for fewer, another pool, or a higher limit",
                fact_ja=f"この期間に、このテナントが {name} で追加できる GPU は {refused.free} 基です",
                hint_ja="数を減らす、別のプールを選ぶ、または上限の引き上げを依頼してください",
            )
        case "taken":
            return NotFree(
                f"{name} has {refused.free} GPUs free in this window",
                hint="ask `sekisho reserve find` for what can be had, or join the waitlist",
                fact_ja=f"この期間に空いている {name} の GPU は {refused.free} 基です",
                hint_ja="`sekisho reserve find` で予約できる枠を調べるか、キャンセル待ちに登録してください",
            )


def key_reused() -> KeyReused:
    return KeyReused(
        "this idempotency key belongs to another request",
        hint="use a new key for a new request",
        fact_ja="この冪等キーは別のリクエストで使用済みです",
        hint_ja="新しいリクエストには新しいキーを使ってください",
    )


def no_such_pool(pool: str) -> NameUnknown:
    return NameUnknown(
        f"there is no pool {pool!r}",
        hint="`sekisho reserve pools` names them",
        fact_ja=f"プール {pool} はありません",
        hint_ja="`sekisho reserve pools` で一覧を確認してください",
    )
